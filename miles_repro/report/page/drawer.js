// One row: seeds, epochs, configuration, command.
const hues = (study) => Object.fromEntries(["fused", ...study.modalities, "delta"].map((name, i) => [name, `c${i % 6}`]));

const epochPlots = (study, found, name) => {
  const hue = hues(study);
  const series = (part, take) => Object.entries(part).map(([k, v]) => ({ name: k === "delta" ? "δ" : part === found.used ? `u ${k}` : k, x: found.epochs, kind: hue[k], marks: found.epochs.length < 2, ...take(v) }));
  const plot = (title, part, take, ylabel, top = null) => {
    const all = series(part, take);
    return all.length ? figure(title, `${name}__${title.replaceAll(" ", "-")}`, lines(all, { xlabel: "epoch", ylabel, top }), legend(all)) : null;
  };
  return [
    h("div", { class: "plots" },
      plot("Learning curves", found.heads, ([y, half]) => ({ y, half }), `validation ${study.metric}, %`, 100),
      plot("Utilization", found.used, (y) => ({ y }), "u of each modality, δ"),
      plot("Learning rates", found.rates, (y) => ({ y }), "encoder's rate / configured rate")),
    h("small", { class: "dim" }, `Means over ${found.n} seeds; bands: 95 % intervals (from three seeds on).`)];
};

const configuration = (study, fusion, strategy) => ({ ...study.base, ...(study.configs[`${fusion} ${strategy}`] || {}) });
const configTable = (study, fusion, strategy, reference) => {
  const own = configuration(study, fusion, strategy);
  const keys = Object.keys(own).filter((k) => own[k] !== null).sort();
  const other = reference && reference !== strategy ? configuration(study, fusion, reference) : null;
  const gone = (v) => (v === undefined || v === null ? NONE : v);
  const differs = other ? [...new Set([...keys, ...Object.keys(other)])].filter((k) => gone(own[k]) !== gone(other[k])).sort() : [];
  return [
    other ? [h("h3", {}, `Differs from ${label(study, reference)} in`), differs.length ? table(["setting", "here", "reference"], differs.map((k) => [k, gone(own[k]), gone(other[k])]), "first prose") : h("p", {}, "nothing.")] : null,
    details(`Whole configuration (${keys.length} settings)`, table(["setting", "value"], keys.map((k) => [k, own[k]]), "first prose")),
  ];
};

const drawer = (study, board, strategy) => {
  const r = [...board.rows, ...study.alone].find((one) => one.s === strategy);
  if (!r) return null;
  const fusion = board.rows.includes(r) ? board.fusion : "concat";
  const reference = theReference(board), found = study.curves[`${fusion} ${strategy}`];
  const cut = (v) => (v === null ? NONE : v.toFixed(1));
  const name = `${study.key}__${fusion}__${strategy}`;
  const run = (id) => DATA.runsUrl ? h("a", { href: `${DATA.runsUrl}/runs/${encodeURIComponent(id)}`, rel: "noreferrer" }, "W&B") : null;
  const judged = Object.keys(study.measures).map((m) => [m, reference ? contrast(board, m, strategy, reference) : null]).filter(([, d]) => d);
  return [
    h("div", { class: "top" },
      h("h2", { id: "drawer-title" }, named(study, strategy), " ", h("small", { class: "dim" }, `${study.place}, ${board.label}`)),
      h("button", { type: "button", id: "close", "aria-label": "Close", onclick: () => go({ row: null }) }, "✕")),
    h("p", {}, `${study.measures.fused}: ${level(r.v.fused || null)} %, n ${runsOf(r)}, trial ${r.trial} (of ${r.trials} that ran), ${duration(r.cost)} ${study.clock} time a run`),
    judged.length ? [h("h3", {}, `Minus ${label(study, reference)}, points`), table(["measure", "difference [interval]", "verdict", "p", "n"], judged.map(([m, d]) => [study.measures[m], difference(d), judgement(d), shownP(d.p), String(d.n)]))] : null,
    found ? epochPlots(study, found, name) : h("p", { class: "dim" }, "No epochs at hand for these runs."),
    h("h3", {}, "Seeds"),
    r.seeds.length ? [table(["seed", "fused", ...study.modalities.map((m) => `${m} (probe)`), "best epoch", "run", ""],
      r.seeds.map(([seed, id, epoch, lost, ...v]) => [String(seed) + (lost ? " diverged" : ""), ...v.map(cut), String(epoch), h("code", {}, id), run(id)])),
      h("p", {}, "Run folders: ", h("code", {}, `${study.dataset}/${fusion}/${strategy}/<run>`), " below the folder of the runs.")] : h("p", {}, "No decision seed yet."),
    h("h3", {}, "Command"),
    h("pre", { id: "command" }, r.command),
    tool("Copy", async (e) => {
      const button = e.target;
      try { await navigator.clipboard.writeText(r.command); } catch {
        getSelection().selectAllChildren(document.getElementById("command"));
        document.execCommand("copy");
      }
      button.textContent = "Copied";
    }),
    h("h3", {}, "Configuration"), configTable(study, fusion, strategy, reference),
    DATA.cards[strategy] ? [h("h3", {}, "Method"), card(DATA.cards[strategy])] : null,
  ];
};
