// Line charts: series [{name, x, y, half, kind, marks, loose, shift}]. half: a band, or bars where
// there are marks; loose: no line; shift: pixels, so that bars do not cover each other.
const nice = (low, high, least = 0) => {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].find((s) => s >= least && (high - low) / s <= 5.2) || 200;
  const found = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + 1e-9; t += step) found.push(t);
  return found;
};
const plain = (t) => String(Math.round(t * 100) / 100);

const lines = (series, { xlabel, ylabel, labels = null, top = null, width = 320, height = 190 }) => {
  const known = series.flatMap((s) => s.y.flatMap((y, i) => y === null ? [] : s.half && s.half[i] !== null ? [y - s.half[i], y + s.half[i]] : [y]));
  let low = Math.min(...known), high = Math.max(...known);
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.05 || 0.5;
  low -= pad; high += pad;
  if (top !== null) high = Math.min(high, top);
  const xs = series.flatMap((s) => s.x), first = Math.min(...xs), last = Math.max(...xs);
  const left = 40, right = 8, upper = 16, lower = labels ? 46 : 34;
  const x = (v, s = {}) => left + (s.shift || 0) + ((v - first) / (last - first || 1)) * (width - left - right);
  const y = (v) => upper + (1 - (v - low) / (high - low)) * (height - upper - lower);
  const clamp = (v) => Math.min(high, Math.max(low, v));
  const path = (s, of) => {
    let d = "", pen = "M";
    s.y.forEach((value, i) => {
      if (value === null) { pen = "M"; return; }
      d += `${pen}${x(s.x[i], s).toFixed(1)} ${y(clamp(of(value, i))).toFixed(1)}`;
      pen = "L";
    });
    return d;
  };
  const band = (s) => {
    const at = s.y.map((value, i) => i).filter((i) => s.y[i] !== null && s.half[i] !== null);
    if (at.length < 2) return [];
    const point = (sign) => (i) => `${x(s.x[i], s).toFixed(1)} ${y(clamp(s.y[i] + sign * s.half[i])).toFixed(1)}`;
    return g("path", { class: `area ${s.kind}`, d: `M${at.map(point(1)).join("L")}L${at.reverse().map(point(-1)).join("L")}Z` });
  };
  const xticks = labels ? labels.map((text, i) => [i, text]) : nice(first, last, xlabel === "epoch" ? 1 : 0).map((t) => [t, plain(t)]);
  return g("svg", { class: "plot", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${ylabel} against ${xlabel || "condition"}: ${series.filter((s) => s.name).map((s) => s.name).join(", ")}` },
    nice(low, high).map((t) => [
      g("path", { class: "grid", d: `M${left} ${y(t).toFixed(1)}H${width - right}` }),
      g("text", { x: left - 5, y: y(t) + 4, "text-anchor": "end" }, plain(t))]),
    xticks.map(([t, text], i) => g("text", { x: x(t), y: height - lower + (labels && i % 2 ? 27 : 14), "text-anchor": labels && !i ? "start" : labels && i === xticks.length - 1 ? "end" : "middle" }, text)),
    g("text", { x: 2, y: 10 }, ylabel),
    xlabel ? g("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xlabel) : [],
    series.filter((s) => s.half && !s.marks).map(band),
    series.filter((s) => !s.loose).map((s) => g("path", { class: `track ${s.kind}`, d: path(s, (v) => v) }, g("title", {}, s.name || ""))),
    series.filter((s) => s.marks).flatMap((s) => s.y.map((v, i) => v === null ? [] : [
      s.half && s.half[i] !== null ? g("path", { class: `track ${s.kind}`, d: `M${x(s.x[i], s)} ${y(clamp(v - s.half[i]))}V${y(clamp(v + s.half[i]))}` }) : [],
      g("circle", { class: `mark ${s.kind}`, cx: x(s.x[i], s).toFixed(1), cy: y(v).toFixed(1), r: 3 }, g("title", {}, `${s.name} ${plain(s.x[i])}: ${v}`))])));
};

const legend = (series) =>
  h("div", { class: "legend" }, series.filter((s) => s.name && s.kind !== "faint").map((s) =>
    h("span", {}, g("svg", { width: 20, height: 8, viewBox: "0 0 20 8", "aria-hidden": "true" }, g("path", { class: `track ${s.kind}`, d: "M0 4H20" })), s.name)));
