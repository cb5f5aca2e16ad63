// The leaderboard: one study, fusion and measure; differences from the reference drawn in the row.
const rowsShown = (study, board, measure, reference, s) => {
  const q = quantity(measure);
  const rows = board.rows.map((r) => ({ ...r, level: r.v[q] || null, d: reference ? contrast(board, measure, r.s, reference) : null, printed: r.paper[q] || null }));
  const alone = study.alone.filter((r) => r.v[q]).map((r) => ({ ...r, level: r.v[q], d: null, printed: r.paper[q] || null, alone: true }));
  return [...rows, ...alone].filter((r) => !s.family || family(study, r.s) === s.family);
};

const columns = (study, measure, reference) => {
  const smaller = measure === "abs_gap";
  const size = (v) => (v === null ? null : smaller ? -Math.abs(v[0]) : v[0]);
  return [
    { key: "name", head: "strategy", value: (r) => label(study, r.s), text: true },
    { key: "mean", head: `${study.measures[measure]}, %`, value: (r) => size(r.level) },
    { key: "difference", head: reference ? `minus ${label(study, reference)}, points` : "difference", value: (r) => (r.d ? (smaller ? -1 : 1) * r.d.mean : null) },
    { key: "verdict", head: "verdict", value: (r) => (r.d ? "bewu".indexOf(r.d.word) : null) },
    { key: "n", head: "n", value: (r) => r.n },
    { key: "cost", head: `${study.clock} time`, value: (r) => r.cost },
    { key: "paper", head: measure === "fused" ? "paper" : "paper (its heads)", value: (r) => size(r.printed) },
  ];
};

const sorted = (rows, cols, sort) => {
  const down = sort.startsWith("-"), column = cols.find((c) => c.key === sort.replace("-", "")) || cols[1];
  const sign = down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const x = column.value(a), y = column.value(b);
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (column.text ? String(x).localeCompare(String(y)) : x - y);
  });
};

const boardRow = (study, board, r, reference, limit, margin, heads, paper) => {
  const cell = (i, content, extra = {}) => h("td", { role: "cell", "data-label": heads[i].head, "data-col": heads[i].key, ...extra }, content);
  const said = { class: "said" };
  const judged = r.s === reference ? h("span", { class: "dim" }, "reference") : r.d ? judgement(r.d) : h("span", { class: "dim" }, NONE);
  return h("tr", { role: "row", "data-row": r.s, class: r.s === reference ? "ref" : null },
    cell(0, [h("button", { type: "button", class: "name", id: `row-${r.s}`, onclick: () => go({ row: r.s }) }, named(study, r.s)), " ", h("small", { class: "dim" }, family(study, r.s))], { class: "left" }),
    cell(1, r.n || r.level ? level(r.level) : "search only"),
    cell(2, r.d ? h("div", { class: "difference" }, cellBar(r.d, limit, margin), h("small", {}, difference(r.d))) : NONE, { class: r.d ? "left wide" : "left none" }),
    cell(3, judged, { class: "left" }),
    cell(4, runsOf(r), said),
    cell(5, duration(r.cost), said),
    paper ? cell(6, r.printed ? [r.printed[0].toFixed(1), r.printed[1] ? h("small", { class: "dim" }, ` ${r.printed[1]}`) : null] : NONE, said) : null);
};

const leaderboard = () => {
  const s = state(), study = theStudy(s), board = theBoard(study, s);
  if (!board) return h("p", {}, "Only models of one modality have run here.");
  const measure = theMeasure(study, s), reference = theReference(board, s), margin = study.margins[measure];
  const cols = columns(study, measure, reference), sort = s.sort || "-mean";
  const rows = sorted(rowsShown(study, board, measure, reference, s), cols, sort);
  const limit = reach(rows.map((r) => r.d), margin), paper = rows.some((r) => r.printed);
  const heads = paper ? cols : cols.slice(0, -1);
  const families = [...new Set(board.rows.map((r) => family(study, r.s)).filter(Boolean))].sort();
  const header = heads.map((c) => {
    const on = sort.replace("-", "") === c.key, down = sort.startsWith("-");
    return h("th", { scope: "col", role: "columnheader", class: ["name", "difference", "verdict"].includes(c.key) ? "left" : null, "aria-sort": on ? (down ? "descending" : "ascending") : "none" },
      h("button", { type: "button", id: `sort-${c.key}`, onclick: () => go({ sort: on && down ? c.key : !on && c.text ? c.key : on ? `-${c.key}` : `-${c.key}` }) }, c.head));
  });
  const file = `${study.key}__${board.fusion}__${measure}`;
  const asCsv = () => saveCsv(`${file}.csv`, [
    ["dataset", "fusion", "measure", "strategy", "mean", "half_interval", "reference", "difference", "low", "high", "verdict", "p", "n", "seconds_of_a_run", "paper"],
    ...rows.map((r) => [study.key, board.fusion, measure, r.s, ...(r.level || ["", ""]), r.d ? reference : "", r.d?.mean, r.d?.low, r.d?.high, r.d?.badge[2], r.d && shownP(r.d.p), r.n, r.cost, r.printed?.[0]])]);
  const asSvg = () => {
    const svg = forest(rows.filter((r) => !r.alone).map((r) => ({ label: label(study, r.s), d: r.d, level: level(r.level), strong: isOwn(study, r.s) })), margin, axisOf(study, measure, reference));
    svg.setAttribute("hidden", "");
    document.body.append(svg);
    svg.removeAttribute("hidden");
    saveSvg(`${file}.svg`, svg);
    svg.remove();
  };
  return h("section", { "aria-label": "Leaderboard" },
    h("form", { onsubmit: (e) => e.preventDefault() },
      chooseStudy(study), chooseFusion(study, board),
      choose("measure", "Measure", Object.entries(study.measures), measure),
      choose("family", "Family", [["", "all"], ...families.map((f) => [f, f])], s.family || ""),
      reference ? choose("ref", "Reference", board.ran.map((n) => [n, label(study, n)]), reference) : null,
      tool("CSV", asCsv), reference ? tool("SVG", asSvg) : null),
    h("table", { class: "board first", role: "table" },
      h("caption", { class: "dim" }, h("small", {}, `${study.place}, ${board.label}`)),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, header)),
      h("tbody", { role: "rowgroup" }, rows.map((r) => boardRow(study, board, r, reference, limit, margin, heads, paper)))),
    notes([
      `Mean ± 95 % interval over n decision seeds. Bar: 95 % anytime-valid interval of the paired difference, uncorrected; coloured only where the verdict is decided (Holm over all strategies against this reference). Grey band: counts as equal (±${margin} points).`,
      reference && reference !== board.reference ? "The reference named beforehand is " + label(study, board.reference) + "; verdicts against another, chosen after looking, are exploratory." : null,
      paper ? "paper: its one run; inside: one more run of ours could give it; luckiest: the best of 80 could; outside: neither." : null,
      ...study.notes,
    ].filter(Boolean)));
};
const axisOf = (study, measure, reference) => `${study.measures[measure]}: points minus ${label(study, reference)}`;
