"use strict";

// A table's rows are shown when they hold all words of its filter and, for the runs, were asked for by a number.
const chosenRuns = { ids: null };

function show(table) {
  const box = table.closest(".scroll").previousElementSibling;
  const words = box.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...table.tBodies[0].rows];
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const asked = !row.id || !chosenRuns.ids || chosenRuns.ids.has(row.id);
    row.hidden = !(asked && words.every((word) => text.includes(word)));
    count += row.hidden ? 0 : 1;
  }
  box.querySelector("output").textContent = count < rows.length ? `${count} of ${rows.length}` : "";
}

// Numbers by value, texts by letters and the numbers in them; empty cells always last.
function sort(table, column, head) {
  const descending = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.cells[column];
    return cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const order =
      typeof a === "number" && typeof b === "number"
        ? a - b
        : String(a).localeCompare(String(b), "en", { numeric: true });
    return descending ? -order : order;
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].map((row) => [key(row), row]).sort((a, b) => compare(a[0], b[0])).map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.closest(".scroll").previousElementSibling.querySelector("input").addEventListener("input", () => show(table));
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => sort(table, column, head));
  });
}

const runs = document.querySelector("#runs table");
const chosen = document.querySelector("#chosen");

function choose(ids, text) {
  chosenRuns.ids = ids;
  chosen.hidden = ids === null;
  chosen.firstElementChild.textContent = ids ? `${ids.size} run${ids.size === 1 ? "" : "s"} behind ${text}` : "";
  document.querySelector("#runs input").value = "";
  show(runs);
}

document.addEventListener("click", (event) => {
  const number = event.target.closest("a[data-runs]");
  if (!number) return;
  event.preventDefault();
  choose(new Set(number.dataset.runs.split(" ").map((run) => `run-${run}`)), number.textContent.trim());
  document.querySelector("#runs").scrollIntoView();
});
chosen.querySelector("button").addEventListener("click", () => choose(null, ""));

// A link to a table that is closed opens it.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  target?.querySelector(":scope > details")?.setAttribute("open", "");
  target?.scrollIntoView();
}
addEventListener("hashchange", reveal);
if (location.hash) reveal();
