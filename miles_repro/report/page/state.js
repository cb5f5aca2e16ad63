// The state of the page is its address: #view=board&data=…&fusion=…&row=…
const VIEWS = { answer: "Answer", board: "Leaderboard", heat: "Heat map", robustness: "Robustness", ablations: "Ablations", cards: "Methods" };
const state = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const address = (changes) => {
  const next = new URLSearchParams(Object.entries({ ...state(), ...changes }).filter(([, v]) => v !== null && v !== "" && v !== undefined));
  return "#" + next.toString();
};
const go = (changes) => { location.hash = address(changes); };

const phone = matchMedia("(max-width: 44rem)");

const theStudy = (s = state()) => DATA.studies.find((one) => one.key === s.data) || DATA.studies[0];
const theBoard = (study, s = state()) => study.boards.find((b) => b.fusion === s.fusion) || study.boards[0];
const theMeasure = (study, s = state()) => (s.measure in study.measures ? s.measure : "fused");
const theReference = (board, s = state()) => (board.ran.includes(s.ref) ? s.ref : board.reference);
const quantity = (measure) => (measure === "abs_gap" ? "gap" : measure);
const label = (study, strategy) => (study.names[strategy] || [strategy])[0];
const family = (study, strategy) => (study.names[strategy] || ["", ""])[1];
const isOwn = (study, strategy) => study.own_strategies.includes(strategy);
const named = (study, strategy) => [label(study, strategy), isOwn(study, strategy) ? h("span", { class: "own" }, "yours") : null];
const runsOf = (r) => (r.lost ? `${r.n} (${r.lost} diverged)` : String(r.n));

// strategy - reference as Python judged it in the reference's family.
const contrast = (board, measure, strategy, reference) => {
  const i = board.ran.indexOf(strategy), j = board.ran.indexOf(reference);
  if (i < 0 || j < 0 || i === j) return null;
  const pairs = board.pairs[measure], k = board.ran.length, a = Math.min(i, j), b = Math.max(i, j);
  const at = a * k - (a * (a + 1)) / 2 + (b - a - 1);
  const [mean, low, high] = pairs.d.slice(3 * at, 3 * at + 3).map((x) => (x === null ? null : x / 100));
  if (mean === null) return null;
  const n = pairs.n.length ? pairs.n[at] : pairs.n;
  const of = pairs.by[reference], word = of.word[i], p = of.p[i], more = of.more[i] || null;
  const [kind, icon, text] = WORDS[word];
  const flip = i > j;
  const minus = (x) => (x === null ? null : flip && x ? -x : x);
  return {
    mean: minus(mean), low: flip ? minus(high) : low, high: flip ? minus(low) : high, n, p, more, word, icon,
    kind: word === "u" ? "" : kind, badge: WORDS[word],
    text: more === null ? text : `${text}, about ${more < 1000 ? more : "over 1000"} more seed${more > 1 ? "s" : ""}`,
  };
};
const judgement = (d) => [badge(d.badge), d.more === null ? null : h("small", { class: "dim" }, d.text.replace(d.badge[2] + ",", ""))];
const choose = (name, title, options, value) =>
  h("label", {}, title,
    h("select", { id: `choose-${name}`, onchange: (e) => go({ [name]: e.target.value, row: null }) },
      options.map(([key, text]) => h("option", { value: key, selected: key === value }, text))));
const chooseStudy = (study) => choose("data", "Data set", DATA.studies.map((s) => [s.key, s.place]), study.key);
const chooseFusion = (study, board) => choose("fusion", "Fusion", study.boards.map((b) => [b.fusion, b.label]), board.fusion);
