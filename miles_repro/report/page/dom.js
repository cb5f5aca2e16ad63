// Elements are made, never parsed: no text of a record becomes markup.
const make = (space) => (tag, attributes, ...children) => {
  const element = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
};
const h = make("http://www.w3.org/1999/xhtml");
const g = make("http://www.w3.org/2000/svg");
const DATA = JSON.parse(document.getElementById("data").textContent);

const NONE = "–";
const signed = (x, digits = 2) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);
const level = (v, digits = 1) =>
  !v ? NONE : v[0].toFixed(digits).replace("-", "−") + (v[1] === null ? " (no CI)" : ` ± ${v[1].toFixed(digits)}`);
const difference = (d) =>
  !d ? NONE : signed(d.mean) + (d.low === null ? " (no CI)" : ` [${signed(d.low)}, ${signed(d.high)}]`);
const shownP = (p) => (p < 0.001 ? "< 0.001" : p.toFixed(3));
const duration = (s) =>
  s === null ? NONE : s < 90 ? `${s.toFixed(1)} s` : s < 5400 ? `${(s / 60).toFixed(1)} min` : `${(s / 3600).toFixed(1)} h`;

// Word -> [class, icon, text]
const WORDS = {
  b: ["good", "▲", "better"], w: ["bad", "▼", "worse"], e: ["even", "=", "equal"],
  u: ["open", "?", "undecided"], "-": ["open", "·", "no pair"],
};
const VERDICTS = {
  better: WORDS.b, worse: WORDS.w, equal: WORDS.e, undecided: WORDS.u,
  supported: ["good", "✔", "supported"], "not supported": ["bad", "✘", "not supported"],
  "not yet run": ["open", "○", "not yet run"],
};
const badge = ([kind, icon, text]) =>
  h("span", { class: `badge ${kind}` }, h("span", { "aria-hidden": "true" }, icon), text);
const verdict = (text) => badge(VERDICTS[text] || ["open", "·", text]);

// A method card: paragraphs, and entries "Loss      text" with their continuation lines.
const card = (text) => {
  const list = h("dl"), before = [];
  for (const line of text.replaceAll("``", "").split("\n")) {
    const entry = line.match(/^(\S.{0,18}?) {2,}(\S.*)$/);
    if (entry) list.append(h("dt", {}, entry[1]), h("dd", {}, entry[2]));
    else if (list.lastChild && line.trim()) list.lastChild.append(" " + line.trim());
    else before.push(line.trim());
  }
  return [h("p", {}, before.join(" ").trim()), list];
};

const details = (title, ...inside) => h("details", {}, h("summary", {}, title), ...inside);
const notes = (lines) => h("ul", { class: "notes" }, lines.map((line) => h("li", {}, line)));
const table = (heads, rows, kind = "first") =>
  h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "table" },
    h("table", { class: kind },
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));

const save = (name, kind, text) => {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
};
const quoted = (x) => (/[",\n]/.test(x) ? `"${x.replaceAll('"', '""')}"` : x);
const saveCsv = (name, rows) =>
  save(name, "text/csv", rows.map((row) => row.map((x) => quoted(String(x ?? ""))).join(",")).join("\n") + "\n");

// The drawing as a file of its own: styles come along as attributes.
const KEPT = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family", "text-anchor"];
const saveSvg = (name, svg) => {
  const copy = svg.cloneNode(true);
  const all = (root) => [root, ...root.querySelectorAll("*")];
  const targets = all(copy);
  all(svg).forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const key of KEPT) targets[i].setAttribute(key, style.getPropertyValue(key));
    targets[i].removeAttribute("class");
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  save(name, "image/svg+xml", new XMLSerializer().serializeToString(copy));
};
const tool = (text, action) => h("button", { type: "button", class: "tool", onclick: action }, text);
const figure = (title, name, svg, ...below) =>
  h("figure", {},
    h("figcaption", {}, title, " ",
      h("button", { type: "button", class: "tool", title: "Save as SVG", "aria-label": `Save ${title} as SVG`, onclick: () => saveSvg(`${name}.svg`, svg) }, "⤓")),
    svg, ...below);
