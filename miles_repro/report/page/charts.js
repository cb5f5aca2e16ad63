// Paired differences: one row's interval, and the forest of several.

// Wide enough for all means, the margin and three quarters of the interval ends; the rest is cut.
const reach = (differences, margin) => {
  const known = differences.filter(Boolean);
  const ends = known.filter((d) => d.low !== null).flatMap((d) => [Math.abs(d.low), Math.abs(d.high)]).sort((a, b) => a - b);
  const most = Math.max(1.5 * margin, ...known.map((d) => 1.3 * Math.abs(d.mean)));
  return Math.max(most, ends.length ? 1.05 * ends[Math.floor(0.75 * (ends.length - 1))] : 0);
};

// d: {mean, low, high, kind}; x: scale. Arrows where the interval goes on.
const interval = (d, x, y, width) => {
  const marks = [];
  if (d.low !== null) {
    const left = Math.max(2, x(d.low)), right = Math.min(width - 2, x(d.high));
    marks.push(g("path", { class: `bar ${d.kind}`, d: `M${left.toFixed(1)} ${y}H${right.toFixed(1)}` }));
    if (x(d.low) < 2) marks.push(g("path", { class: `bar ${d.kind}`, d: `M6 ${y - 4}L2 ${y}L6 ${y + 4}` }));
    if (x(d.high) > width - 2)
      marks.push(g("path", { class: `bar ${d.kind}`, d: `M${width - 6} ${y - 4}L${width - 2} ${y}L${width - 6} ${y + 4}` }));
  }
  marks.push(g("circle", { class: `dot ${d.kind}`, cx: Math.min(width - 4, Math.max(4, x(d.mean))).toFixed(1), cy: y, r: 4 }));
  return marks;
};

const cellBar = (d, limit, margin, width = 190, height = 20) => {
  const x = (value) => width / 2 + (value / limit) * (width / 2 - 4);
  return g("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": d ? `${difference(d)} points, ${d.text}` : "no difference" },
    g("rect", { class: "margin", x: x(-margin), y: 0, width: x(margin) - x(-margin), height }),
    g("path", { class: "zero", d: `M${width / 2} 0V${height}` }),
    d ? interval(d, x, height / 2, width) : []);
};

const ticksOf = (limit, most) => {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].find((s) => limit / s <= most) || 50;
  const found = [];
  for (let t = -Math.floor(limit / step) * step; t <= limit; t += step) found.push(Math.round(t * 10) / 10);
  return found;
};

// items: [{label, d, level}]; the reference has no difference.
const forest = (items, margin, axis, width = 560) => {
  const limit = reach(items.map((item) => item.d), margin);
  const row = 21, left = width < 400 ? 108 : 130, right = width < 400 ? 66 : 92, inner = width - left - right, height = items.length * row + 34;
  const x = (value) => inner / 2 + (value / limit) * (inner / 2 - 5);
  const body = items.length * row;
  return g("svg", { class: "forest", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${axis}: ` + items.map((i) => `${i.label} ${i.d ? `${difference(i.d)}, ${i.d.text}` : "reference"}`).join("; ") },
    g("g", { transform: `translate(${left} 0)` },
      g("rect", { class: "margin", x: x(-margin), y: 0, width: x(margin) - x(-margin), height: body }),
      ticksOf(limit, width < 400 ? 2.2 : 3.5).map((t) => [
        g("path", { class: t ? "grid" : "zero", d: `M${x(t).toFixed(1)} 0V${body + 4}` }),
        g("text", { x: x(t), y: body + 16, "text-anchor": "middle", class: "dim" }, t === 0 ? "0" : signed(t, t % 1 ? 1 : 0))]),
      g("text", { x: inner / 2, y: body + 30, "text-anchor": "middle", class: "dim" }, axis),
      items.map((item, i) => item.d ? g("g", {}, g("title", {}, `${item.label} ${difference(item.d)}: ${item.d.text}`), interval(item.d, x, i * row + row / 2, inner)) : [])),
    items.map((item, i) => [
      g("text", { x: left - 8, y: i * row + row / 2 + 4, "text-anchor": "end", "font-weight": item.strong ? 700 : null }, item.label.length > left / 6.2 ? item.label.slice(0, Math.floor(left / 6.2) - 1) + "…" : item.label),
      g("text", { x: width, y: i * row + row / 2 + 4, "text-anchor": "end", class: item.d ? null : "dim" }, item.level)]));
};
