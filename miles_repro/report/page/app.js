const ablations = () => DATA.ablations.length ? DATA.ablations.map((one) => {
  const ordered = one.parameter !== "source";
  const hue = ["c0", "c1", "c2", "c3", "c4", "c5"];
  return h("section", { "aria-label": one.title },
    h("h2", {}, `MILES along ${one.parameter}: ${one.title}`),
    h("div", { class: "plots" }, Object.entries(one.lines).map(([name, points], i) => {
      const at = [...points].sort((a, b) => (ordered ? a[0] - b[0] : 0));
      const x = at.map((p, k) => (ordered ? Number(p[0]) : k));
      const series = [];
      if (at.some((p) => p[3] !== null)) {
        const known = at.map((p, k) => [x[k], p[3]]).filter(([, y]) => y !== null);
        series.push({ name: "paper (one run)", x: known.map(([a]) => a), y: known.map(([, b]) => b), kind: "ghost", marks: true });
      }
      series.push({ name: "ours", x, y: at.map((p) => p[1]), half: at.map((p) => p[2]), kind: hue[i], marks: true });
      return figure(name.replace("_", " "), `${one.parameter}__${name}`, lines(series, { xlabel: ordered ? one.parameter : "", ylabel: name === "best_epoch" ? "epoch" : "test metric, %", labels: ordered ? null : at.map((p) => p[0]), top: name === "best_epoch" ? null : 100 }), legend(series));
    })),
    notes(one.notes));
}) : h("p", {}, "No ablation of MILES has run yet.");

const methods = () => {
  const names = {};
  for (const study of DATA.studies) for (const s of Object.keys(study.names)) names[s] = { study, own: isOwn(study, s) };
  const order = Object.keys(names).filter((s) => !s.startsWith("unimodal_")).sort((a, b) => names[b].own - names[a].own || family(names[a].study, a).localeCompare(family(names[b].study, b)) || a.localeCompare(b));
  return order.length && h("div", { class: "cards" }, order.map((s) => h("article", { class: "card", id: `card-${s}` },
    h("h2", {}, named(names[s].study, s), " ", h("small", { class: "dim" }, family(names[s].study, s)), " ", h("code", {}, `strategy=${s}`)),
    DATA.cards[s] ? card(DATA.cards[s]) : h("p", { class: "dim" }, "No card: its module is not on this machine's menu."))));
};

const RENDER = { answer: answers, board: leaderboard, heat, robustness, ablations, cards: methods };
const show = () => {
  const s = state(), view = s.view in RENDER ? s.view : "answer", focus = document.activeElement?.id;
  document.getElementById("views").replaceChildren(...Object.entries(VIEWS).map(([key, text]) => h("a", { href: address({ view: key, row: null }), id: `view-${key}`, "aria-current": key === view ? "page" : null }, text)));
  const content = DATA.studies.length || view === "answer" ? [RENDER[view]()].flat(Infinity).filter(Boolean) : [];
  document.getElementById("main").replaceChildren(...(content.length ? content : [h("p", {}, "Nothing to show yet.")]));
  document.getElementById("paper").hidden = view !== "answer";
  const dialog = document.getElementById("drawer"), study = theStudy(s);
  const board = study && theBoard(study, s), row = s.row && board ? drawer(study, board, s.row) : null;
  dialog.replaceChildren(...(row || []).flat(Infinity).filter(Boolean));
  if (row && !dialog.open) dialog.showModal();
  if (!row && dialog.open) dialog.close();
  if (!row && focus) document.getElementById(focus)?.focus();
};
addEventListener("hashchange", (e) => {
  const before = new URLSearchParams(new URL(e.oldURL).hash.slice(1));
  show();
  if (before.get("row") && !state().row) document.getElementById(`row-${before.get("row")}`)?.focus();
});
document.getElementById("drawer").addEventListener("cancel", (e) => { e.preventDefault(); go({ row: null }); });
document.getElementById("drawer").addEventListener("click", (e) => { if (e.target === e.currentTarget) go({ row: null }); });
phone.addEventListener("change", show);
show();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
