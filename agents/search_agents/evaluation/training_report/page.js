(() => {
  const {runs, differ, panels, tables, samples} = JSON.parse(document.getElementById("payload").textContent);
  const byId = (id) => document.getElementById(id);
  const WIDTH = 360, HEIGHT = 210, LEFT = 46, RIGHT = 8, TOP = 16, BOTTOM = 32;
  const number = (value) => (value === null ? "-" : String(Number(value.toPrecision(4))));

  function draw(tag, className, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    made.setAttribute("class", className);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
    if (text !== undefined) made.textContent = visible(text);
    return made;
  }

  function table(header, rows) {
    const line = (tag, cells) => make("tr", "", cells.map((cell) => make(tag, "", cell)));
    return make("div", "scroll", make("table", "", make("thead", "", line("th", header)),
      make("tbody", "", rows.map((cells) => line("td", cells)))));
  }

  /** Round numbers between two bounds, about as many as `wanted`. */
  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const width = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough * 0.999);
    const found = [];
    for (let at = Math.ceil(low / width - 1e-9); at * width <= high + width * 1e-9; at++) found.push(at * width);
    return found;
  }

  /** The bounds of an axis: never of no width. */
  function bounds(values, padding) {
    const low = Math.min(...values), high = Math.max(...values);
    const room = (high - low) * padding || Math.abs(high) * 0.1 || 1;
    return [low - room, high + room];
  }

  function reading(curve, place) {
    const several = curve.runs[place] > 1 || runs.length > 1;
    const band = several
      ? ` (${number(curve.low[place])} to ${number(curve.high[place])}, ${curve.runs[place]} of ${runs.length} runs)` : "";
    return number(curve.mean[place]) + band;
  }

  function chart(panel) {
    const all = [...new Set(panel.curves.flatMap((curve) => curve.steps))].sort((one, other) => one - other);
    const [first, last] = all.length > 1 ? [all[0], all[all.length - 1]] : [all[0] - 1, all[0] + 1];
    const [low, high] = bounds(panel.curves.flatMap((curve) => [...curve.low, ...curve.high]), 0.05);
    const x = (step) => LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT);
    const y = (value) => TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM);
    const svg = draw("svg", "chart", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": panel.title});
    for (const tick of ticks(low, high, 6)) {
      svg.append(draw("line", "grid", {x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick)}),
        draw("text", "", {x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end"}, number(tick)));
    }
    for (const tick of ticks(first, last, 6).filter(Number.isInteger)) {
      svg.append(draw("text", "", {x: x(tick), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle"}, number(tick)));
    }
    svg.append(draw("text", "", {x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle"}, "step"));
    runs.forEach((run, place) => run.bounds.forEach((bound) => {
      svg.append(draw("line", "bound", {x1: x(bound.place), x2: x(bound.place), y1: TOP, y2: HEIGHT - BOTTOM}));
      if (place === 0) svg.append(draw("text", "", {x: x(bound.place) + 3, y: TOP - 4}, bound.stage));
    }));
    panel.curves.forEach((curve, color) => {
      const points = (values) => curve.steps.map((step, place) => `${x(step).toFixed(1)},${y(values[place]).toFixed(1)}`);
      if (runs.length > 1) {
        svg.append(draw("polygon", `area curve-${color}`,
          {points: [...points(curve.low), ...points(curve.high).reverse()].join(" ")}));
      }
      svg.append(curve.steps.length > 1
        ? draw("polyline", `line curve-${color}`, {points: points(curve.mean).join(" ")})
        : draw("circle", `dot curve-${color}`, {cx: x(curve.steps[0]), cy: y(curve.mean[0]), r: 3}));
    });
    const cursor = draw("line", "cursor", {y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden"});
    const told = make("p", "reading dim");
    svg.append(cursor);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const at = first + ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * (last - first);
      const step = all.reduce((best, each) => (Math.abs(each - at) < Math.abs(best - at) ? each : best));
      cursor.setAttribute("x1", x(step));
      cursor.setAttribute("x2", x(step));
      cursor.setAttribute("visibility", "visible");
      told.textContent = visible(`step ${step}: ` + panel.curves.filter((curve) => curve.steps.includes(step))
        .map((curve) => `${curve.label} ${reading(curve, curve.steps.indexOf(step))}`).join(" · "));
    });
    svg.addEventListener("pointerleave", () => {
      cursor.setAttribute("visibility", "hidden");
      told.textContent = "";
    });
    const numbers = make("details", "", make("summary", "dim", "Numbers"));
    numbers.addEventListener("toggle", () => numbers.append(table(["step", ...panel.curves.map((curve) => curve.label)],
      all.map((step) => [step, ...panel.curves.map((curve) =>
        curve.steps.includes(step) ? reading(curve, curve.steps.indexOf(step)) : "-")]))), {once: true});
    return make("figure", "", make("h3", "", panel.title),
      make("div", "", panel.curves.map((curve, color) => make("span", `key curve-${color}`, curve.label))),
      svg, told, numbers);
  }

  function showRuns() {
    const steps = (run) => Object.entries(run.steps).map(([stage, count]) => `${stage} ${count}`).join(" + ") || "0";
    byId("runs").append(table(["run", "seed", "model", "steps", "minutes", ""], runs.map((run) => [
      run.path, run.seed, run.model, steps(run), (run.seconds / 60).toFixed(1), run.finished ? "finished" : "not finished",
    ])));
    if (differ.length) {
      byId("runs").append(make("p", "warning",
        `These runs are not the seeds of one recipe. They differ in: ${differ.join(", ")}.`));
    }
    byId("band").textContent = !panels.length ? "No step is finished yet."
      : "Dashed lines: a stage gives way to the next." + (runs.length > 1
        ? ` Line: mean of the ${runs.length} runs; band: from the lowest to the highest of them.` : "");
  }

  function episode(each, title) {
    const list = make("dl", "");
    const fact = (name, ...values) => list.append(make("dt", "", name), make("dd", "", ...values));
    fact("Question", each.question);
    fact("Gold answers", each.golds.join(" · "));
    fact("Answer", each.answer === null ? make("i", "", "none") : each.answer);
    const parts = Object.entries(each.reward_parts).map(([name, value]) => `${name} ${number(value)}`).join(" + ");
    fact("Reward", number(each.reward) + (parts ? ` = ${parts}` : ""));
    fact("F1", number(each.f1));
    fact("Searches", each.searches);
    fact("Ended", (each.stop_reason ?? "unknown").replace(/_/g, " "));
    if (each.problems.length) fact("Format", each.problems.join("; "));
    return make("article", "episode",
      make("h3", "", title, " ", make("span", "chip " + each.outcome.replace(" ", "-"), each.outcome)), list,
      each.turns.map((turn) => [make("pre", "model", turn.segment),
        turn.observation ? make("details", "", make("summary", "dim", "What the model read next"),
          make("pre", "read", turn.observation)) : null]));
  }

  const [runSelect, slider] = [byId("run"), byId("step")];

  function showStep() {
    const {step, episodes} = samples[runSelect.value][slider.value];
    byId("step-name").textContent = String(step);
    byId("episodes").replaceChildren(...episodes.map((each, place) => episode(each, ["Best", "Worst"][place])));
  }

  function showRun() {
    const found = samples[runSelect.value];
    slider.max = String(Math.max(found.length - 1, 0));
    slider.value = slider.max;
    slider.disabled = found.length < 2;
    if (found.length) return showStep();
    byId("step-name").textContent = "";
    byId("episodes").replaceChildren(make("p", "", "This run has kept no episodes of its steps."));
  }

  showRuns();
  byId("panels").append(...panels.map(chart));
  for (const each of tables) byId("tables").append(make("h2", "", each.title), table(each.header, each.rows));
  runs.forEach((run, place) => {
    const option = make("option", "", run.name);
    option.value = String(place);
    runSelect.append(option);
  });
  byId("run-label").hidden = runs.length < 2;
  byId("choice").addEventListener("submit", (event) => event.preventDefault());
  runSelect.addEventListener("change", showRun);
  slider.addEventListener("input", showStep);
  showRun();
})();
