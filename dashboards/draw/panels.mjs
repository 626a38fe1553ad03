// The kinds of panels, as SVG.

const PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a"];
const NAMED = { green: "#73bf69", red: "#f2495c", orange: "#ff9830", blue: "#5794f2", yellow: "#fade2a", purple: "#b877d9", text: "#ccccdc" };

const colour = (name) => NAMED[name] ?? name ?? NAMED.text;
const escape = (text) => String(text).replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);

/** Cut to what fits, as Grafana cuts with an ellipsis. */
const cut = (text, width, size = 12) => {
  const most = Math.max(1, Math.floor(width / (size * 0.6)));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
};

/** A number in the panel's unit, as Grafana words it. */
export function worded(value, defaults) {
  const { unit, decimals, mappings = [] } = defaults;
  const mapped = mappings.find((each) => each.type === "value" && each.options[String(value)]);
  if (mapped) return mapped.options[String(value)].text;
  const steps = (scale, by) => {
    let [number, at] = [value, 0];
    while (Math.abs(number) >= by && at < scale.length - 1) [number, at] = [number / by, at + 1];
    return `${digits(number, decimals)} ${scale[at]}`.trim();
  };
  const size = Math.abs(value);
  switch (unit) {
    case "s":
      if (size > 0 && size < 1) return `${digits(value * 1000, decimals === undefined ? undefined : 0)} ms`;
      if (size >= 86400) return `${digits(value / 86400, decimals)} days`;
      if (size >= 3600) return `${digits(value / 3600, decimals)} hours`;
      if (size >= 60) return `${digits(value / 60, decimals)} mins`;
      return `${digits(value, decimals)} s`;
    case "percentunit": return `${digits(value * 100, decimals)}%`;
    case "bytes": return steps(["B", "KiB", "MiB", "GiB", "TiB"], 1024);
    case "Bps": return steps(["B/s", "kB/s", "MB/s", "GB/s"], 1000);
    case "cps": return `${digits(value, decimals)} c/s`;
    case "mps": return `${digits(value, decimals)} msg/s`;
    case "short": return steps(["", "K", "Mil"], 1000);
    case "none": case undefined: return digits(value, decimals);
    default: return `${digits(value, decimals)}${unit.startsWith("suffix:") ? unit.slice("suffix:".length) : ` ${unit}`}`;
  }
}

function digits(number, decimals) {
  const auto = Math.abs(number) >= 100 || Number.isInteger(number) ? 0 : Math.abs(number) >= 10 ? 1 : 2;
  return number.toFixed(decimals ?? auto);
}

function threshold(value, defaults) {
  const mapped = (defaults.mappings ?? []).find((each) => each.type === "value" && each.options[String(value)]);
  if (mapped?.options[String(value)].color) return colour(mapped.options[String(value)].color);
  const steps = defaults.thresholds?.steps ?? [];
  return colour([...steps].reverse().find((step) => step.value === null || value >= step.value)?.color);
}

function legend(format, metric) {
  if (format) return format.replace(/{{\s*(\w+)\s*}}/g, (_, label) => metric[label] ?? "").trim();
  return Object.entries(metric).map(([name, value]) => `${name}="${value}"`).join(", ");
}

/** The colour of a series: the panel's own for its name, or the next of the palette. */
function paint(panel, { name }, index) {
  const own = panel.fieldConfig.overrides.findLast(({ matcher }) => matcher.id === "byRegexp" && new RegExp(matcher.options).test(name));
  const fixed = own?.properties.find(({ id }) => id === "color")?.value.fixedColor;
  return fixed ? colour(fixed) : PALETTE[index % PALETTE.length];
}

/** The series of all queries: name, points (milliseconds, number), the last number. */
function series(panel, answers) {
  return answers.flatMap((answer, index) =>
    (answer?.result ?? []).map(({ metric, value, values }) => {
      const points = (values ?? [value]).map(([at, text]) => [at * 1000, Number(text)]).filter(([, number]) => !Number.isNaN(number));
      return { name: legend(panel.targets[index].legendFormat, metric), points, last: points.at(-1)?.[1] };
    }),
  ).filter(({ points }) => points.length > 0);
}

const svg = ({ width, height }, inside) => `<svg width="${width}" height="${height}" font-size="12" fill="#ccccdc">${inside}</svg>`;
const text = (x, y, words, more = "") => `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${escape(words)}</text>`;

export function drawn(panel, answers, size, time) {
  const all = series(panel, answers);
  if (all.length === 0) return `<div class="empty">No data</div>`;
  const kinds = { stat, gauge, bargauge: bars, timeseries: lines, "state-timeline": states };
  const draw = kinds[panel.type];
  if (!draw) return `<div class="empty">no drawing of ${escape(panel.type)}</div>`;
  return svg(size, draw(panel, all, size, time));
}

function stat(panel, all, { width, height }) {
  const { defaults } = panel.fieldConfig;
  const each = height / all.length;
  return all.map(({ name, last }, index) => {
    const words = worded(last, defaults);
    const font = Math.min(each * 0.55, (width * 1.5) / words.length, 60);
    const label = all.length > 1 ? text(4, each * index + 14, cut(name, width / 2)) : "";
    return label + text(width / 2, each * index + each / 2 + font / 3, words, `text-anchor="middle" font-size="${font}" fill="${threshold(last, defaults)}"`);
  }).join("");
}

function gauge(panel, all, { width, height }) {
  const { defaults } = panel.fieldConfig;
  const wide = width / all.length;
  return all.map(({ name, last }, index) => {
    const [x, radius] = [wide * (index + 0.5), Math.min(wide / 2 - 10, height - 36)];
    const y = radius + 8;
    const share = Math.max(0, Math.min(1, (last - (defaults.min ?? 0)) / ((defaults.max ?? 1) - (defaults.min ?? 0))));
    const arc = (to, stroke) => {
      const angle = Math.PI * (1 - to);
      const end = `${(x + radius * Math.cos(angle)).toFixed(1)} ${(y - radius * Math.sin(angle)).toFixed(1)}`;
      return `<path d="M ${(x - radius).toFixed(1)} ${y} A ${radius} ${radius} 0 0 1 ${end}" fill="none" stroke="${stroke}" stroke-width="12"/>`;
    };
    const words = worded(last, defaults);
    return arc(1, "#2c3038") + arc(share, threshold(last, defaults))
      + text(x, y - 4, words, `text-anchor="middle" font-size="${Math.min(26, radius / 2)}" fill="${threshold(last, defaults)}"`)
      + text(x, y + 18, cut(name, wide), 'text-anchor="middle"');
  }).join("");
}

function bars(panel, all, { width, height }) {
  const { defaults } = panel.fieldConfig;
  const most = defaults.max ?? Math.max(...all.map(({ last }) => last), 1e-9);
  const each = height / all.length;
  const above = panel.options.namePlacement === "top";
  const names = above ? 0 : Math.min(width * 0.45, Math.max(...all.map(({ name }) => name.length)) * 7.2 + 8);
  return all.map(({ name, last }, index) => {
    const y = each * index;
    const bar = Math.max(1, ((width - names - 90) * Math.max(0, last)) / most);
    const fill = threshold(last, defaults);
    const top = above ? Math.max(18, each * 0.15) : each * 0.15;
    return text(0, above ? y + 14 : y + each / 2 + 4, cut(name, above ? width : names))
      + `<rect x="${names + 6}" y="${y + top}" width="${bar}" height="${each * 0.85 - top}" fill="${fill}" opacity="0.7"/>`
      + text(names + bar + 12, y + each / 2 + 4, worded(last, defaults), `fill="${fill}"`);
  }).join("");
}

function axis(time, from, to, y) {
  const left = new Date(time.from).toISOString().slice(11, 19);
  const right = new Date(time.to).toISOString().slice(11, 19);
  return text(from, y, left, 'fill="#8e8e9c"') + text(to, y, right, 'text-anchor="end" fill="#8e8e9c"');
}

/** A legend at the right: all rows that fit, beside the graph. */
function beside(panel, all, defaults, { width, height }) {
  const wide = Math.min(width * 0.4, Math.max(...all.map(({ name }) => name.length)) * 7.2 + 110);
  const room = Math.floor(height / 20) - 1;
  const left = width - wide + 16;
  let out = text(width, 12, "Last *", 'text-anchor="end" fill="#8ab8ff"');
  all.slice(0, room).forEach((each, index) => {
    const y = (index + 1) * 20 + 12;
    out += `<rect x="${left}" y="${y - 5}" width="14" height="4" fill="${paint(panel, each, index)}"/>`
      + text(left + 20, y, cut(each.name, wide - 100)) + text(width, y, worded(each.last, defaults), 'text-anchor="end"');
  });
  if (all.length > room) out += text(left, 12, `${all.length - room} more to scroll for`, 'fill="#ff7383"');
  return { out, wide };
}

/** The legend takes at most a third of the panel, as Grafana's does: what doesn't fit has to be scrolled for. */
function below(panel, all, defaults, { width, height }, table) {
  const line = table ? 20 : 18;
  const room = Math.floor((height * 0.35) / line);
  const shown = all.slice(0, table ? Math.max(1, room - 1) : all.length);
  let [out, x, rows] = ["", 0, 1];
  if (table) {
    rows = shown.length + 1;
    out = text(width, 12, "Last *", 'text-anchor="end" fill="#8ab8ff"');
    shown.forEach((each, index) => {
      const { name, last } = each;
      const y = (index + 1) * line + 12;
      out += `<rect x="0" y="${y - 5}" width="14" height="4" fill="${paint(panel, each, index)}"/>`
        + text(20, y, cut(name, width - 120)) + text(width, y, worded(last, defaults), 'text-anchor="end"');
    });
    if (shown.length < all.length) out += text(width / 2, 12, `${all.length - shown.length} more to scroll for`, 'text-anchor="middle" fill="#ff7383"');
  } else {
    shown.forEach((each, index) => {
      const { name } = each;
      const wide = name.length * 7 + 34;
      if (x + wide > width && x > 0) [x, rows] = [0, rows + 1];
      const y = (rows - 1) * line + 12;
      out += `<rect x="${x}" y="${y - 5}" width="14" height="4" fill="${paint(panel, each, index)}"/>` + text(x + 20, y, name);
      x += wide;
    });
  }
  return { out, high: rows * line + 4 };
}

function lines(panel, all, size, time) {
  const { defaults } = panel.fieldConfig;
  const { legend: wanted } = panel.options;
  const at = wanted.showLegend ? wanted.placement : "nowhere";
  const under = at === "bottom" ? below(panel, all, defaults, size, wanted.displayMode === "table") : { out: "", high: 0 };
  const next = at === "right" ? beside(panel, all, defaults, size) : { out: "", wide: 0 };
  const width = size.width - next.wide;
  const stacked = defaults.custom?.stacking?.mode === "normal";
  const bottom = size.height - under.high - 18;
  const sums = new Map();
  const shapes = all.map(({ points }) => points.map(([at, value]) => {
    if (!stacked) return [at, 0, value];
    const base = sums.get(at) ?? 0;
    sums.set(at, base + value);
    return [at, base, base + value];
  }));
  const values = shapes.flat().map(([, , value]) => value);
  let [low, high] = [defaults.min ?? Math.min(...values), defaults.max ?? Math.max(...values)];
  if (low === high) [low, high] = [Math.min(low, defaults.min ?? low - 1), high + 1];
  const marks = [0, 0.5, 1].map((share) => low + share * (high - low))
    .map((value) => [value, worded(value, { ...defaults, mappings: [] })]);
  const left = Math.max(64, ...marks.map(([, words]) => words.length * 7.2 + 8));
  const x = (at) => left + ((width - left) * (at - time.from)) / Math.max(1, time.to - time.from);
  const y = (value) => 6 + (bottom - 6) * (1 - (value - low) / (high - low));
  let out = marks.map(([value, words]) =>
    `<line x1="${left}" x2="${width}" y1="${y(value)}" y2="${y(value)}" stroke="#2c3038"/>`
      + text(left - 6, y(value) + 4, words, 'text-anchor="end" fill="#8e8e9c"')).join("");
  shapes.forEach((points, index) => {
    const own = paint(panel, all[index], index);
    const place = (part) => (point) => `${x(point[0]).toFixed(1)},${y(point[part]).toFixed(1)}`;
    for (const piece of pieces(points)) {
      const tops = piece.map(place(2));
      if (stacked) out += `<polygon points="${[...tops, ...piece.map(place(1)).reverse()].join(" ")}" fill="${own}" opacity="0.6"/>`;
      out += `<polyline points="${tops.join(" ")}" fill="none" stroke="${own}" stroke-width="1.5"/>`;
    }
  });
  return out + axis(time, left, width, bottom + 14) + next.out + `<g transform="translate(0 ${size.height - under.high + 4})">${under.out}</g>`;
}

/** What is between gaps: Grafana does not join what was not there. */
function pieces(points) {
  const out = [];
  points.forEach((point, index) => {
    if (index === 0 || point[0] - points[index - 1][0] > 2500) out.push([]);
    out.at(-1).push(point);
  });
  return out;
}

function states(panel, all, size, time) {
  const { defaults } = panel.fieldConfig;
  const names = Math.min(size.width * 0.3, Math.max(...all.map(({ name }) => name.length)) * 7.2 + 8);
  const each = (size.height - 18) / all.length;
  const x = (at) => names + ((size.width - names) * (at - time.from)) / Math.max(1, time.to - time.from);
  let out = all.map(({ name, points }, index) => {
    const y = each * index;
    const cells = points.map(([at, value]) => `<rect x="${x(at).toFixed(1)}" y="${(y + each * 0.08).toFixed(1)}" width="${(x(at + 1100) - x(at)).toFixed(1)}" height="${(each * 0.84).toFixed(1)}" fill="${threshold(value, defaults)}"/>`);
    // The state's name, where it begins and has room.
    const said = panel.options.showValue === "auto" ? points.map(([at, value], number) => {
      if (number > 0 && points[number - 1][1] === value && at - points[number - 1][0] < 2500) return "";
      const ends = points.findIndex((point, later) => later > number && point[1] !== value);
      const room = x(ends < 0 ? points.at(-1)[0] : points[ends][0]) - x(at);
      const words = worded(value, defaults);
      return room > words.length * 7 + 6 ? text(x(at) + 4, y + each / 2 + 4, words, 'fill="#111217"') : "";
    }) : [];
    return text(0, y + each / 2 + 4, cut(name, names)) + cells.join("") + said.join("");
  }).join("");
  if (each < 12) out += text(size.width / 2, 14, `${all.length} rows of ${each.toFixed(0)} pixels are too many`, 'text-anchor="middle" fill="#ff7383"');
  return out + axis(time, names, size.width, size.height - 2);
}
