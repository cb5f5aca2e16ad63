const SHOWN = 12;
// Own strategies first, then the best; the reference is never missing.
const answerItems = (study, board) => {
  const reference = board.reference, rank = (name) => board.ran.indexOf(name);
  const keep = new Set([...board.ran].sort((a, b) => isOwn(study, b) - isOwn(study, a) || (b === reference) - (a === reference) || (b === "miles") - (a === "miles") || rank(a) - rank(b)).slice(0, SHOWN));
  return board.ran.filter((n) => keep.has(n)).sort((a, b) => isOwn(study, b) - isOwn(study, a) || rank(a) - rank(b)).map((n) => ({
    label: label(study, n) + (isOwn(study, n) ? " (yours)" : ""), strong: isOwn(study, n), d: contrast(board, "fused", n, reference), level: level(board.rows.find((r) => r.s === n).v.fused) }));
};

const answerBoard = (study, board) => {
  const items = board.reference ? answerItems(study, board) : [];
  const rest = board.ran.length - items.length;
  const open = address({ view: "board", data: study.key, fusion: board.fusion, row: null });
  return h("div", { class: study.boards.length > 1 ? "answer" : "answer single", "data-answer": `${study.key} ${board.fusion}` },
    h("div", {},
      h("h3", {}, `With ${board.label} `, leadBadge(board)),
      h("p", { class: "head" }, board.answer.head),
      board.answer.more.map((line) => h("p", {}, line)),
      h("p", { class: "dim" }, board.paper),
      h("a", { href: open }, items.length > 1 && rest > 0 ? `Leaderboard: ${rest} more, all measures, costs, seeds` : "Leaderboard: all measures, costs, seeds")),
    items.length > 1 ? figure("Paired differences", `${study.key}__${board.fusion}`, forest(items, study.margins.fused, axisOf(study, "fused", board.reference), phone.matches ? 345 : 560)) : null);
};
const leadBadge = (board) => badge({ better: ["good", "▲", "one best"], equal: ["even", "=", "shared lead"], undecided: ["open", "?", "undecided"] }[board.answer.word]);

// One line a board: who leads, and the leader's difference (the second's, where the reference leads).
const glance = () => {
  const boards = DATA.studies.flatMap((study) => study.boards.map((board) => ({ study, board }))).filter(({ board }) => board.ran.length);
  if (boards.length < 3) return null;
  const all = boards.map(({ study, board }) => {
    const best = board.ran[0], other = best === board.reference ? board.ran[1] : best;
    return { study, board, best, other, d: other && board.reference ? contrast(board, "fused", other, board.reference) : null };
  });
  const limit = reach(all.map((one) => one.d), 1);
  const references = new Set(all.map(({ study, board }) => label(study, board.reference)));
  const heads = ["data set", "highest mean, %", "one best?", `minus ${references.size === 1 ? [...references][0] : "the reference"}, points`, "paper's best, %"];
  return h("section", { "aria-label": "At a glance", class: "glance" },
    h("table", { class: "board first", role: "table" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads.map((text) => h("th", { role: "columnheader", scope: "col", class: "left" }, text)))),
      h("tbody", { role: "rowgroup" }, all.map(({ study, board, best, other, d }) => {
        const texts = [
          h("a", { href: address({ view: "board", data: study.key, fusion: board.fusion }) }, study.place, ", ", board.label),
          [named(study, best), ` ${level(board.rows[0].v.fused)}`],
          leadBadge(board),
          d ? h("div", { class: "difference" }, cellBar(d, limit, study.margins.fused, 150), h("small", {}, `${other === best ? "" : `${label(study, other)}: `}${difference(d)}`)) : NONE,
          board.best ? `${board.best[0]} ${board.best[1].toFixed(1)}` : NONE];
        return h("tr", { role: "row" }, texts.map((content, i) => h("td", { role: "cell", "data-label": heads[i], class: i === 3 ? "left wide" : i === 4 ? "left said" : "left" }, content)));
      }))));
};

const claims = () => {
  const run = (claim) => claim.verdicts.some(([, text]) => text !== "not yet run");
  const one = (claim) => details(
    h("span", {}, claim.text, " ", claim.verdicts.filter(([name]) => name !== "paper's data sets" || run(claim)).filter(([, text]) => text !== "not yet run").map(([name, text]) => h("span", {}, " ", verdict(text), " ", h("small", { class: "dim" }, name)))),
    h("p", { class: "dim" }, `Claimed by: ${claim.by}. ${claim.test}`),
    claim.findings.length ? table(["where", "verdict", "numbers"], claim.findings.map(([where, word, numbers]) => [where, verdict(word), numbers]), "first prose") : null);
  const ran = DATA.claims.filter(run), rest = DATA.claims.filter((c) => !run(c));
  return h("section", { "aria-label": "Claims", class: "claims" },
    ran.length ? [h("h2", {}, "The paper's claims, by these numbers"), ran.map(one)] : null,
    rest.length ? details(`Claims not yet run (${rest.length})`, rest.map(one)) : null);
};

const answers = () => [
  glance(),
  DATA.studies.length ? h("div", {}, DATA.studies.map((study) =>
    h("article", { class: "card" },
      h("h2", {}, study.place, study.own ? h("span", { class: "own" }, "yours") : null),
      h("p", { class: "facts" }, study.facts.map((f) => h("span", {}, f))),
      study.boards.length ? h("div", { class: "answers" }, study.boards.map((b) => answerBoard(study, b))) : h("p", {}, "Only models of one modality have run here."),
      study.notes.length ? notes(study.notes) : null))) : h("p", { class: "head" }, "No run has finished yet."),
  DATA.studies.some((study) => study.boards.length) ? notes([
    "One best: it beats every other strategy, each pair at 5 %. Counts of better, equal and undecided: Holm over the others; the leader was chosen after looking, so they are exploratory.",
    "Bars: 95 % anytime-valid intervals of paired differences from the reference named beforehand, uncorrected; coloured where decided (Holm); grey band: counts as equal.",
  ]) : null,
  claims(),
];

const heat = () => {
  const budgets = [...new Set(DATA.studies.map((s) => s.budget))];
  return budgets.map((budget) => {
    const cols = DATA.studies.filter((s) => s.budget === budget).flatMap((study) => study.boards.map((board) => ({ study, board })));
    const names = [...new Set(cols.flatMap(({ board }) => board.ran))];
    if (!names.length) return null;
    const studyOf = (name) => cols.find(({ board }) => board.ran.includes(name)).study;
    const group = DATA.ranks.find((r) => r.title.endsWith(`data sets, budget ${budget}`)) || DATA.ranks.find((r) => cols.some(({ study }) => r.title === study.place));
    const rank = Object.fromEntries(group ? group.rows : []);
    const at = (name, { board }) => board.rows.find((r) => r.s === name)?.v.fused || null;
    const place = (name, column) => {
      const own = at(name, column);
      return own && column.board.rows.filter((r) => r.v.fused && r.v.fused[0] > own[0]).length;
    };
    names.sort((a, b) => isOwn(studyOf(b), b) - isOwn(studyOf(a), a) || (rank[a] ?? 99) - (rank[b] ?? 99) || place(a, cols[0]) - place(b, cols[0]));
    const cell = (name, column) => {
      const value = at(name, column), i = place(name, column), k = column.board.ran.length;
      const td = h("td", { class: i === 0 ? "best" : null, "data-heat": `${name} ${column.study.key} ${column.board.fusion}`, title: value ? `${label(column.study, name)}: place ${i + 1} of ${k}` : "not run" }, value ? value[0].toFixed(1) : NONE);
      if (value) td.style.background = `rgba(var(--heat),${(0.55 * (1 - i / Math.max(1, k - 1))).toFixed(2)})`;
      return td;
    };
    return h("section", { "aria-label": `Heat map, budget ${budget}` },
      h("h2", {}, `Fused metric in %, budget ${budget}`),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "heat map" }, h("table", { class: "heat first" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "strategy"), h("th", { scope: "col" }, "average rank"), cols.map(({ study, board }) => h("th", { scope: "col" }, study.place.split(", budget")[0], h("br", {}), board.label)))),
        h("tbody", {}, names.map((name) => h("tr", {}, h("td", {}, named(studyOf(name), name)), h("td", { "data-rank": name }, rank[name]?.toFixed(2) ?? NONE), cols.map((c) => cell(name, c))))))),
      notes(["Shade: place within its column by the mean as shown (darkest: first); a shade is no verdict.", ...(group ? [`Average rank: ${group.title}.`, ...group.notes] : ["No average rank: it needs three strategies and two blocks."])]));
  });
};

const spotlight = (study, board, s) => {
  const asked = (s.show || "").split(",").filter((n) => board.ran.includes(n));
  const usual = [...study.own_strategies, "miles", board.reference, ...board.ran].filter((n, i, all) => board.ran.includes(n) && all.indexOf(n) === i);
  return (asked.length ? asked : usual).slice(0, 5);
};
const robustness = () => {
  const s = state(), study = theStudy(s), board = theBoard(study, s);
  if (!board) return h("p", {}, "Only models of one modality have run here.");
  const lit = spotlight(study, board, s);
  const plot = (part, title, columns, xs, labels, xlabel) => {
    const series = part.rows.filter(([f]) => f === board.fusion).map(([, name, points]) => {
      const at = columns.map((i) => points[i]);
      const i = lit.indexOf(name);
      return { name: label(study, name), x: xs, y: at.map((p) => p && p[0]), half: i >= 0 ? at.map((p) => p && p[1]) : null, kind: i >= 0 ? `c${i}` : "faint", marks: i >= 0, loose: part.section === "utilization", shift: i >= 0 ? 2.5 * (i - (lit.length - 1) / 2) : 0 };
    }).filter((one) => one.y.some((v) => v !== null)).sort((a, b) => (a.kind !== "faint") - (b.kind !== "faint"));
    return series.length ? figure(title, `${study.key}__${board.fusion}__${title.replaceAll(" ", "-")}`, lines(series, { xlabel, ylabel: part.section === "utilization" ? "u, δ" : `fused ${study.metric}, %`, labels, top: part.section === "utilization" ? null : 100 }), legend(series)) : null;
  };
  const plots = study.robustness.flatMap((part) => {
    const all = part.columns.map((_, i) => i);
    if (part.section !== "noise") return [plot(part, part.title.split(",")[0], all, all, part.columns.map(([a, b]) => (a ? `− ${b}` : b)), "")];
    const groups = [...new Set(part.columns.map(([a]) => a).filter(Boolean))];
    return groups.map((name) => {
      const own = all.filter((i) => part.columns[i][0] === name).sort((a, b) => part.columns[a][1] - part.columns[b][1]);
      return plot(part, name, [0, ...own], [0, ...own.map((i) => Number(part.columns[i][1]))], null, "standard deviations");
    });
  });
  const toggle = (name) => go({ show: (lit.includes(name) ? lit.filter((n) => n !== name) : [...lit, name].slice(-5)).join(",") });
  return [
    h("form", { onsubmit: (e) => e.preventDefault() }, chooseStudy(study), chooseFusion(study, board)),
    h("p", {}, "In colour (five at most): ", board.ran.map((n) => [h("button", { type: "button", id: `lit-${n}`, "aria-pressed": String(lit.includes(n)), class: lit.includes(n) ? "even" : null, onclick: () => toggle(n) }, label(study, n)), " "])),
    plots.filter(Boolean).length ? h("div", { class: "plots" }, plots) : h("p", {}, "Nothing was disturbed in these runs."),
    notes([...new Set(study.robustness.flatMap((p) => p.notes))]),
  ];
};
