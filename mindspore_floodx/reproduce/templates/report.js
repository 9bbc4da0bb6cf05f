"use strict";
// The page's own script. Whatever comes from data goes into the page as text, never as markup.

const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const element = (tag, text = "", className = "") => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};

// ---- light and dark: the system's choice until the button is pressed ----

const theme = find("#theme");
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (prefersDark.matches ? "dark" : "light")) === "dark";
const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
prefersDark.addEventListener("change", nameTheme);
nameTheme();

// On paper what belongs there is open.
const printed = all("[data-print]");
let wereOpen = [];
addEventListener("beforeprint", () => {
  wereOpen = printed.map((each) => each.open);
  for (const each of printed) each.open = true;
});
addEventListener("afterprint", () => printed.forEach((each, number) => { each.open = wereOpen[number]; }));

// ---- the table of results: sorting and filtering ----

const table = find("#main");
if (table) {
  const body = find("tbody", table);
  const rows = all("tr", body);
  const filters = all("#filters select");
  const headings = all("thead th", table);

  const filterRows = () => {
    let shown = 0;
    for (const row of rows) {
      row.hidden = filters.some((filter) => filter.value && row.dataset[filter.dataset.filter] !== filter.value);
      shown += row.hidden ? 0 : 1;
    }
    find("#row-count").textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  };

  const sortRows = (heading) => {
    const column = headings.indexOf(heading);
    const isNumber = heading.classList.contains("number");
    const sorted = heading.getAttribute("aria-sort");
    const ascending = sorted === "none" ? !isNumber : sorted === "descending"; // numbers: the highest first
    for (const other of headings) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
    const compare = (a, b) => {
      const [left, right] = [key(a), key(b)];
      if (left === "" || right === "") return (left === "") - (right === ""); // what is missing comes last
      const order = Number(left) - Number(right);
      return (ascending ? 1 : -1) * (Number.isNaN(order) ? left.localeCompare(right, "en") : order);
    };
    body.append(...rows.sort(compare));
  };

  for (const filter of filters) filter.addEventListener("change", filterRows);
  for (const heading of headings) find("button", heading)?.addEventListener("click", () => sortRows(heading));
  filterRows();
}

// ---- the attacked sentences ----

const index = JSON.parse(find("#index").textContent);
const PAGE = 25;
const RESULTS = { s: "succeeded", f: "failed", k: "skipped" };
const FIELDS = [["dataset", "Data set"], ["method", "Method"], ["seed", "Seed"], ["attack", "Attack"], ["kind", "Scores"]];
const at = Object.fromEntries(index.columns.map((name, place) => [name, place]));

const unpacked = new Map();
function unpack(number) { // a block, unpacked once
  if (!unpacked.has(number)) unpacked.set(number, inflate(find(`#block-${number}`).textContent));
  return unpacked.get(number);
}
async function inflate(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

if (index.sets.length) {
  const picks = Object.fromEntries(FIELDS.map(([name, label]) => {
    const holder = element("label", label);
    const select = element("select");
    select.dataset.pick = name;
    holder.append(select);
    find("#pick").append(holder);
    return [name, select];
  }));
  const list = find("#samples");
  const pageInput = find("#pages input");
  let samples = []; // of the chosen sets: {row, set, texts}
  let shown = []; // those of them that fit the search and the result
  let page = 0;
  let turn = 0; // of loading: an older one that ends late is dropped

  // Each choice is among what the choices before it leave; one that is gone falls back to the first there is.
  function offer(wanted) {
    let sets = index.sets;
    for (const [name] of FIELDS) {
      const values = [...new Set(sets.map((set) => set[name]))];
      const chosen = wanted[name] === "" || values.includes(wanted[name]) ? wanted[name] : values[0];
      picks[name].replaceChildren(...(values.length > 1 ? [new Option("all", "")] : []), ...values.map((value) => new Option(value)));
      picks[name].value = values.length > 1 || chosen !== "" ? chosen : values[0];
      sets = sets.filter((set) => picks[name].value === "" || set[name] === picks[name].value);
    }
    return sets;
  }

  async function load(wanted) {
    const mine = ++turn;
    const sets = offer(wanted);
    describe(sets);
    const found = [];
    find("#sample-count").textContent = "Unpacking …";
    try {
      for (const set of sets) {
        const texts = await unpack(index.texts[set.dataset]);
        for (const row of await unpack(set.block)) found.push({ row, set, texts });
        if (mine !== turn) return;
      }
    } catch (error) {
      list.replaceChildren(element("li", typeof DecompressionStream === "undefined"
        ? "This browser is too old to unpack the sentences; one of 2023 or later can. The tables and figures need no unpacking."
        : `The sentences cannot be unpacked: ${error.message}`, "notice"));
      find("#sample-count").textContent = "";
      return;
    }
    samples = found;
    filter();
  }

  // What is changed comes as [text column, start, end, replacement]; without texts as [old words, new words].
  const hasText = (sample) => typeof sample.row[at.text] === "number";
  function perturbed(sample) {
    if (sample.after === undefined) {
      if (hasText(sample)) {
        const columns = [...sample.texts[sample.row[at.text]]];
        for (const [column, start, end, words] of [...sample.row[at.changes]].reverse()) {
          columns[column] = columns[column].slice(0, start) + words + columns[column].slice(end);
        }
        sample.after = columns.join("\n").toLowerCase();
      } else {
        sample.after = `${sample.row[at.text]}\n${sample.row[at.changes].flat().join("\n")}`.toLowerCase();
      }
    }
    return sample.after;
  }
  function matcher(query) {
    if (!query) return () => true;
    const originals = new Map(); // an original is shared by many samples and looked through once
    return (sample) => {
      if (hasText(sample)) {
        const text = sample.texts[sample.row[at.text]];
        if (!originals.has(text)) originals.set(text, text.join("\n").toLowerCase().includes(query));
        if (originals.get(text)) return true;
      }
      return perturbed(sample).includes(query);
    };
  }

  function filter() {
    const matches = matcher(find("#search").value.trim().toLowerCase());
    const found = samples.filter(matches);
    const outcome = find("#outcome input:checked").value;
    for (const input of all("#outcome input")) {
      const count = input.value ? found.filter((sample) => sample.row[at.result] === input.value).length : found.length;
      find("span", input.parentElement).textContent = `(${count.toLocaleString("en")})`;
    }
    shown = outcome ? found.filter((sample) => sample.row[at.result] === outcome) : found;
    const order = at[find("#order").value];
    if (order !== undefined) shown = [...shown].sort((a, b) => (b.row[order] ?? -1) - (a.row[order] ?? -1));
    turnTo(0);
  }

  function turnTo(wanted) {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(0, wanted), pages - 1);
    const first = page * PAGE;
    const several = new Set(shown.map((sample) => sample.set)).size > 1;
    list.replaceChildren(...shown.slice(first, first + PAGE).map((sample) => draw(sample, several)));
    find("#sample-count").textContent = shown.length
      ? `${(first + 1).toLocaleString("en")}–${Math.min(first + PAGE, shown.length).toLocaleString("en")} of ${shown.length.toLocaleString("en")}`
      : "No sentence fits.";
    find("#pages").hidden = pages === 1;
    find("#pages span").textContent = pages.toLocaleString("en");
    pageInput.value = page + 1;
    pageInput.max = pages;
    for (const button of all("#pages button")) {
      button.disabled = button.dataset.step < 0 ? page === 0 : page === pages - 1;
    }
  }

  function draw(sample, several) {
    const { row, set } = sample;
    const item = element("li");
    const facts = element("div", "", "facts");
    const label = (number) => index.cells[set.cell].labels[number] ?? String(number);
    const score = (value) => (value === null ? "" : ` ${(value / 100).toFixed(2)}`);
    const fact = (...parts) => { // a string is plain, an array with one string is set bold
      const span = element("span");
      span.append(...parts.map((part) => (Array.isArray(part) ? element("b", part[0]) : part)));
      facts.append(span);
    };
    facts.append(element("span", RESULTS[row[at.result]], `badge ${row[at.result]}`));
    fact([label(row[at.before])], score(row[at.score_before]), " → ", [label(row[at.after])], score(row[at.score_after]));
    fact("true label ", [label(row[at.label])]);
    fact(`${row[at.queries].toLocaleString("en")} ${row[at.queries] === 1 ? "query" : "queries"}`);
    if (row[at.words] !== null) fact(`${row[at.words_changed]} of ${row[at.words]} words changed`);
    fact(`no. ${row[at.id]}`);
    if (several) fact(`${set.dataset}, ${set.method}, seed ${set.seed}, ${set.attack}, ${set.kind}`);
    item.append(facts);
    if (hasText(sample)) {
      sample.texts[row[at.text]].forEach((text, column) => item.append(marked(sample, text, column)));
    } else {
      const line = element("p");
      for (const [old, replacement] of row[at.changes]) mark(line, old, replacement, "  ");
      item.append(line, element("div", `text left out, SHA-256 ${row[at.text]}`, "hash"));
    }
    return item;
  }

  function marked(sample, text, column) {
    const line = element("p");
    const names = index.cells[sample.set.cell].columns;
    if (sample.texts[sample.row[at.text]].length > 1) line.append(element("span", names[column] ?? "", "column"));
    let done = 0;
    for (const [own, start, end, words] of sample.row[at.changes]) {
      if (own !== column) continue;
      line.append(text.slice(done, start));
      mark(line, text.slice(start, end), words, "");
      done = end;
    }
    line.append(text.slice(done));
    return line;
  }
  function mark(line, old, replacement, space) {
    if (old) line.append(element("del", old));
    if (old && replacement) line.append(element("span", " ", "gap")); // belongs to neither text
    if (replacement) line.append(element("ins", replacement));
    line.append(space);
  }

  // What is known of the chosen cells.
  function describe(sets) {
    const cells = [...new Set(sets.map((set) => set.cell))].map((number) => index.cells[number]);
    const resources = [...new Set(sets.map((set) => set.resources))].join(" and ");
    const only = cells.length === 1 ? cells[0] : null;
    find("#about").textContent = only
      ? `${only.about} Attacked with ${resources}.`
      : `${cells.length} cells. Attacked with ${resources}.`;
    find("#settings").hidden = !only;
    find("#settings dl").replaceChildren(...(only ? only.facts : []).map(([term, text]) => {
      const line = element("div");
      line.append(element("dt", term), element("dd", text));
      return line;
    }));
  }

  const chosen = () => Object.fromEntries(FIELDS.map(([name]) => [name, picks[name].value]));
  for (const [name] of FIELDS) picks[name].addEventListener("change", () => load(chosen()));
  let waiting;
  find("#search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 150); });
  find("#outcome").addEventListener("change", filter);
  find("#order").addEventListener("change", filter);
  for (const button of all("#pages button")) {
    button.addEventListener("click", () => {
      turnTo(page + Number(button.dataset.step));
      find("#sample-count").scrollIntoView();
    });
  }
  pageInput.addEventListener("change", () => turnTo(Number(pageInput.value) - 1 || 0));
  for (const button of all("[data-open]")) {
    button.addEventListener("click", () => {
      const set = index.sets.find((other) => index.cells[other.cell].id === button.dataset.open && other.attack === button.dataset.attack);
      if (!set) return;
      load(set);
      find("#sentences").scrollIntoView();
      find("#search").focus({ preventScroll: true });
    });
  }
  load({});
}
