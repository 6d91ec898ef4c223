"use strict";
// Whatever a name or a note says, it reaches the page as text: nothing here writes HTML.

function make(tag, text) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Cells without a value stay last, whichever way the others go.
function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  return sign * (typeof one === "number" ? one - other : one.localeCompare(other));
}

function sort(heads, body, rows, column) {
  const numbers = rows.some((row) => typeof row.cells[column].value === "number");
  const now = heads[column].getAttribute("aria-sort");
  const order = now ? (now === "ascending" ? "descending" : "ascending") : numbers ? "descending" : "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((a, b) => compare(a.cells[column].value, b.cells[column].value, sign));
  body.replaceChildren(...rows.map((row) => row.element));
}

function table(section, filters) {
  const made = make("table");
  if (section.published) made.className = "published";
  const body = make("tbody");
  const rows = section.rows.map((cells) => {
    const element = make("tr");
    element.append(...cells.map((cell) => make("td", cell.text)));
    return { cells, element };
  });
  const heads = section.header.map((label, column) => {
    const head = make("th"), button = make("button", label);
    head.scope = "col";
    button.type = "button";
    button.addEventListener("click", () => sort(heads, body, rows, column));
    head.append(button);
    return head;
  });
  const line = make("tr"), top = make("thead"), around = make("div");
  line.append(...heads);
  top.append(line);
  body.append(...rows.map((row) => row.element));
  made.append(top, body);
  around.className = "scroll";
  around.append(made);
  filters.push((words) => rows.forEach(({ element }) => {
    const text = element.textContent.toLowerCase();
    element.hidden = !words.every((word) => text.includes(word));
  }));
  return around;
}

const main = document.querySelector("main"), filters = [];
for (const section of JSON.parse(document.getElementById("board").textContent)) {
  main.append(make(`h${section.level}`, section.heading));
  main.append(...section.notes.map((note) => make("p", note)));
  main.append(...section.commands.map((command) => make("pre", command)));
  if (section.header.length) main.append(table(section, filters));
}
document.getElementById("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  filters.forEach((filter) => filter(words));
});
