(() => {
  const {runs, documents} = JSON.parse(document.getElementById("payload").textContent);
  const OUTCOMES = ["right", "wrong", "no answer", "truncated", "invalid"];
  // How likely the model found its own token; the last bound is 0.
  const HEAT = [[0.99, "≥ 99 %"], [0.9, "≥ 90 %"], [0.5, "≥ 50 %"], [0.1, "≥ 10 %"], [0, "< 10 %"]];
  const two = runs.length === 2;
  const byId = (id) => document.getElementById(id);
  const [rowList, panes, search, originSelect] = ["rows", "panes", "text", "origin"].map(byId);
  let current = null;
  let showTokens = false;

  const chip = (outcome) => make("span", "chip " + outcome.replace(" ", "-"), outcome);
  const number = (value) => (value === null ? "not a number" : String(Math.round(value * 1000) / 1000));
  const key = (episode) => JSON.stringify([episode.question.id, episode.question.text]);

  function option(select, value, label) {
    const made = make("option", "", label);
    made.value = value;
    select.append(made);
  }

  /** One row an episode; of two runs one row a question, with the episodes of each. */
  function makeRows() {
    if (!two) return runs[0].episodes.map((episode) => ({sides: [[episode]]}));
    const rows = new Map();
    runs.forEach((run, side) => {
      for (const episode of run.episodes) {
        if (!rows.has(key(episode))) rows.set(key(episode), {sides: [[], []]});
        rows.get(key(episode)).sides[side].push(episode);
      }
    });
    return [...rows.values()];
  }

  /** What the text filter looks through. */
  function words(episode) {
    const texts = [
      episode.question.id, episode.question.text, ...episode.question.answers, episode.answer || "",
      ...episode.turns.flatMap((turn) => [
        turn.segment, turn.text, ...turn.hits.map((hit) => documents[hit.document].title),
      ]),
    ];
    return texts.join("\n").toLowerCase();
  }

  function makeButton(row) {
    const [first] = row.sides.flat();
    row.lines = row.sides.map(() => make("span", "line"));
    const button = make("button", "row", make("span", "question", first.question.text), row.lines);
    button.type = "button";
    button.addEventListener("click", () => open(row, true));
    return button;
  }

  /** Of each side of a row the episodes that fit the filters. */
  function drawLines(row) {
    row.fits.forEach((episodes, side) => {
      const line = row.lines[side];
      line.replaceChildren(...(two ? [make("b", "", "AB"[side])] : []));
      if (!episodes.length) line.append(make("span", "dim", "not shown"));
      for (const episode of episodes) {
        const made = chip(episode.outcome);
        made.title = visible(episode.origin);
        line.append(made);
      }
      if (episodes.length === 1) line.append(make("span", "answer", episodes[0].answer ?? ""));
      if (!two) line.append(make("span", "dim", episodes[0].origin));
    });
  }

  const rows = makeRows();
  for (const row of rows) {
    for (const episode of row.sides.flat()) episode.words = words(episode);
    row.button = makeButton(row);
    row.item = make("li", "", row.button);
    rowList.append(row.item);
  }

  // Filters.
  const outcomeSelects = runs.map((run, side) => {
    const select = make("select", "");
    select.id = "outcome-" + "ab"[side];
    select.setAttribute("aria-label", two ? "Outcome of " + "AB"[side] : "Outcome");
    option(select, "", "all outcomes");
    for (const outcome of OUTCOMES) {
      option(select, outcome, `${outcome} (${run.episodes.filter((episode) => episode.outcome === outcome).length})`);
    }
    const label = make("label", "", two ? "AB"[side] + " " : "Outcome ", select);
    byId("outcomes").append(label);
    return select;
  });
  const origins = [...new Set(runs.flatMap((run) => run.episodes.map((episode) => episode.origin)))];
  if (origins.length > 1) {
    byId("origin-label").hidden = false;
    option(originSelect, "", "the whole run");
    origins.forEach((origin, place) => option(originSelect, place, origin || "file"));
  }

  const shown = () => rows.filter((row) => !row.item.hidden);

  /** The origins that both sides of a row have, in the order of the first. */
  const common = ([first, second = []]) =>
    first.map((episode) => episode.origin).filter((origin) => second.some((episode) => episode.origin === origin));

  /** Of each side of a row the episodes that fit the filters of origin and outcome. */
  function fitting(row) {
    const fits = row.sides.map((episodes, side) => episodes.filter((episode) =>
      (!originSelect.value || episode.origin === origins[originSelect.value])
      && (!outcomeSelects[side].value || episode.outcome === outcomeSelects[side].value)));
    if (!common(row.sides).length || !outcomeSelects.every((select) => select.value)) return fits;
    // "A wrong, B right" is asked of one origin, not of A before and B after.
    const both = common(fits);
    return fits.map((episodes) => episodes.filter((episode) => both.includes(episode.origin)));
  }

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    for (const row of rows) {
      row.fits = fitting(row);
      row.item.hidden = !row.fits.flat().some((episode) => episode.words.includes(wanted))
        || outcomeSelects.some((select, side) => select.value && !row.fits[side].length);
      if (!row.item.hidden) drawLines(row);
    }
    const what = two ? "questions" : "episodes";
    const total = runs.some((run) => run.total > run.episodes.length)
      ? ` (of ${runs.map((run) => run.total.toLocaleString("en")).join(" and ")} episodes; --limit shows more)` : "";
    byId("count").textContent = `${shown().length} of ${rows.length} ${what}${total}`;
  }

  runs.forEach((run, side) => {
    const tally = make("li", "", two ? make("b", "", "AB"[side] + " ") : null, make("span", "dim", run.path + " "));
    for (const outcome of OUTCOMES) {
      const count = run.episodes.filter((episode) => episode.outcome === outcome).length;
      if (count) tally.append(chip(outcome), ` ${count} `);
    }
    byId("tallies").append(tally);
  });

  // An episode.
  function fold(title, className, ...children) {
    return make("details", className, make("summary", "", title), ...children);
  }

  function fact(list, name, ...values) {
    list.append(make("dt", "", name), make("dd", "", ...values));
  }

  function facts(episode) {
    const list = make("dl", "facts");
    fact(list, "Answer", episode.answer === null ? make("i", "", "none") : episode.answer);
    fact(list, "Gold answers", episode.question.answers.join(" · "));
    if (episode.question.golds.length) {
      fact(list, "Gold documents", episode.question.golds.map((gold) =>
        make("span", gold.found ? "gold" : "missed", `${gold.found ? "✓" : "✗"} ${gold.title}`)));
    }
    const {em, f1, cem} = episode.metrics || {};
    if (episode.metrics) fact(list, "Metrics", `EM ${number(em)} · F1 ${number(f1)} · ACC_R ${number(cem)}`);
    const parts = Object.entries(episode.reward_parts);
    if (parts.length) {
      const sum = parts.map(([name, value]) => `${name} ${number(value)}`).join(" + ");
      fact(list, "Reward", `${number(episode.reward)} = ${sum}`);
    }
    fact(list, "Searches", String(episode.searches) + (episode.repeated ? `, ${episode.repeated} repeated` : ""));
    fact(list, "Ended", (episode.stop_reason ?? "unknown").replace(/_/g, " "));
    if (episode.problems.length) fact(list, "Format", episode.problems.join("; "));
    if (episode.question.about) fact(list, "Question", `${episode.question.id}: ${episode.question.about}`);
    else fact(list, "Question", episode.question.id);
    return list;
  }

  /** The model's own words, the query or answer in them marked. */
  function segment(turn) {
    const place = turn.text ? turn.segment.lastIndexOf(turn.text) : -1;
    if (place < 0) return make("pre", "model", turn.segment);
    return make("pre", "model", turn.segment.slice(0, place),
      make("mark", turn.kind, turn.text), turn.segment.slice(place + turn.text.length));
  }

  function hit(found, rank) {
    const {id, title, text} = documents[found.document];
    const score = found.score === null ? "" : ` · score ${number(found.score)}`;
    const made = fold(make("span", "", `(${rank + 1}) ${title} `, found.gold ? make("span", "gold", "gold") : null),
      found.gold ? "hit is-gold" : "hit", make("pre", "", text), make("p", "dim", `document ${id}${score}`));
    made.open = found.gold;
    return made;
  }

  function call(each) {
    const tokens = each.prompt_tokens || each.tokens ? ` (${each.prompt_tokens} tokens read, ${each.tokens} written)` : "";
    return fold(`Call: ${each.purpose}${tokens}`, "call",
      each.prompt ? [make("h5", "", "Prompt"), make("pre", "", each.prompt)] : make("p", "dim", "It read the episode so far."),
      each.text ? [make("h5", "", "Text"), make("pre", "", each.text)] : make("p", "dim", "It wrote the turn below."));
  }

  function turnBlock(turn, place) {
    const title = {search: "Query", answer: "Answer", malformed: "Malformed"}[turn.kind];
    return make("section", "turn",
      make("h4", "", `${place + 1} · ${title}`, turn.text ? make("span", "action " + turn.kind, turn.text) : null),
      turn.problem ? make("p", "problem", turn.problem) : null,
      turn.calls.map(call),
      turn.segment ? segment(turn) : null,
      turn.hits.map(hit),
      turn.observation ? fold("What the model read next", "read", make("pre", "", turn.observation)) : null);
  }

  const heatOf = (logprob) => HEAT.findIndex(([bound]) => Math.exp(logprob ?? -Infinity) >= bound);

  /** What a segment is, and what the loss of a training step did with it; of other episodes nobody knows. */
  function meaning(episode, kind) {
    if (kind === "prompt" || episode.trained === null) return kind;
    return kind + (episode.trained.includes(kind) ? ": trained on" : ": masked");
  }

  const segmentClass = (episode, kind) => `segment ${kind}${episode.trained?.includes(kind) ? " trained" : ""}`;

  function legend(episode) {
    const kinds = [...new Set(episode.segments.map((each) => each.kind))];
    return make("p", "legend",
      kinds.map((kind) => make("span", segmentClass(episode, kind), meaning(episode, kind))),
      episode.segments.some((each) => each.pieces.length && each.kind === "sampled") ? ["  probability of a sampled token: ",
        HEAT.map(([, name], place) => make("span", "token heat-" + place, name))] : null);
  }

  /** The tokens of an episode: by the mask, and where the model sampled, by how likely it found them. */
  function tokenBlock(episode) {
    const block = make("pre", "tokens");
    for (const each of episode.segments) {
      const {kind, logprobs, count} = each;
      const mean = logprobs.length ? logprobs.reduce((sum, value) => sum + (value ?? 0), 0) / logprobs.length : null;
      const part = make("span", segmentClass(episode, kind));
      part.title = `${meaning(episode, kind)}${count ? `, ${count} tokens` : ""}`
        + (mean === null ? "" : `, mean log-prob ${number(mean)}`);
      if (!each.pieces.length) part.append(visible(each.text));
      each.pieces.forEach((piece, place) => {
        if (kind !== "sampled") return part.append(visible(piece));
        const token = make("span", "token heat-" + heatOf(logprobs[place]), piece);
        const logprob = logprobs[place];
        token.title = logprob === null ? "log-prob not finite"
          : `log-prob ${number(logprob)}, ${(100 * Math.exp(logprob)).toFixed(1)} %`;
        return part.append(token);
      });
      block.append(part);
    }
    return [legend(episode), block];
  }

  function episodeBlock(episode) {
    const body = showTokens && episode.segments.length
      ? tokenBlock(episode)
      : [showTokens ? make("p", "dim", "The tokens of this episode were not kept.") : null, episode.turns.map(turnBlock)];
    return make("div", "episode", facts(episode), body);
  }

  /** One side: the episode chosen among those that fit; at first one whose origin the other side has as well. */
  function pane(row, side) {
    const episodes = row.fits[side];
    const heading = make("h3", "", two ? `${"AB"[side]} · ${runs[side].name} ` : runs[side].name + " ");
    const made = make("article", "pane", heading);
    if (!episodes.length) {
      const why = row.sides[side].length ? "fits the filters" : "is shown";
      made.append(make("p", "dim", `No episode of this question ${why}.`));
      return made;
    }
    const [origin] = common(row.fits);
    const begun = Math.max(0, episodes.findIndex((episode) => episode.origin === origin));
    let body = episodeBlock(episodes[begun]);
    if (episodes.length > 1) {
      const select = make("select", "");
      select.setAttribute("aria-label", "Episode of " + "AB"[side]);
      episodes.forEach((episode, place) =>
        option(select, place, `${place + 1} of ${episodes.length} · ${episode.origin} · ${episode.outcome}`));
      select.value = begun;
      select.addEventListener("change", () => {
        const next = episodeBlock(episodes[select.value]);
        body.replaceWith(next);
        body = next;
      });
      heading.append(select);
    } else {
      heading.append(chip(episodes[0].outcome), make("span", "dim", " " + episodes[0].origin));
    }
    made.append(body);
    return made;
  }

  function open(row, focus) {
    current?.button.removeAttribute("aria-current");
    current = row;
    row.button.setAttribute("aria-current", "true");
    byId("hint").hidden = true;
    byId("bar").hidden = false;
    byId("asked").textContent = visible(row.sides.flat()[0].question.text);
    panes.className = two ? "two" : "";
    panes.replaceChildren(...row.sides.map((_, side) => pane(row, side)));
    byId("detail").scrollTop = 0;
    if (focus) byId("asked").focus({preventScroll: true});
  }

  function close() {
    if (!current) return;
    const {button} = current;
    button.removeAttribute("aria-current");
    current = null;
    panes.replaceChildren();
    byId("bar").hidden = true;
    byId("hint").hidden = false;
    button.focus();
  }

  function toggleTokens() {
    showTokens = !showTokens;
    byId("tokens").setAttribute("aria-pressed", String(showTokens));
    if (current) open(current, false);
  }

  function step(by) {
    const list = shown();
    const place = list.findIndex((row) => row === current || row.button === document.activeElement);
    const next = list[place < 0 ? 0 : Math.min(Math.max(place + by, 0), list.length - 1)];
    if (!next) return;
    if (current) open(next, false);
    next.button.focus();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select");
    if (event.key === "Escape") {
      if (typing) event.target.blur();
      else close();
      return;
    }
    const act = {j: () => step(1), k: () => step(-1), t: toggleTokens, "/": () => search.focus()}[event.key];
    if (!act || typing) return;
    event.preventDefault();
    act();
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("input", (event) => {
    filter();
    if (current && !current.item.hidden && event.target.matches("select")) open(current, false);
  });
  byId("tokens").addEventListener("click", toggleTokens);
  byId("close").addEventListener("click", close);
  filter();
})();
