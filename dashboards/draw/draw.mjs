// Draws each dashboard as a picture, with real data, since no Grafana runs where this is built: to look at what lies
// where, what is cut off, and whether units and names say something. It is no Grafana: it knows the kinds of panels that
// are used here, their grid, units, mappings and thresholds, and roughly Grafana's sizes.
//
//   node draw.mjs ANSWERS.json OUT        (`make dashboards` gets the answers of a real Prometheus first)

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { drawn } from "./panels.mjs";

const [answersFile, out] = process.argv.slice(2);
if (!answersFile || !out) {
  console.error("usage: node draw.mjs ANSWERS.json OUT");
  process.exit(2);
}
/** Grafana's grid: 24 columns over the page's width, rows of 30 pixels, 8 pixels in between. */
const WIDTH = 1600;
const ROW = 30;
const GAP = 8;

const here = dirname(fileURLToPath(import.meta.url));
const answers = JSON.parse(readFileSync(answersFile, "utf8"));
const found = new Map(answers.panels.map((each) => [`${each.dashboard}/${each.panel}`, each.answers]));
const browser = ["chromium", "chromium-browser", "google-chrome"].find((name) => {
  try {
    execFileSync(name, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
});

const escape = (text) => String(text).replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);

function box(panel, dashboard) {
  const { x, y, w, h } = panel.gridPos;
  const place = {
    left: (x * (WIDTH + GAP)) / 24,
    top: y * (ROW + GAP),
    width: (w * (WIDTH + GAP)) / 24 - GAP,
    height: h * (ROW + GAP) - GAP,
  };
  const style = Object.entries(place).map(([name, value]) => `${name}:${value.toFixed(1)}px`).join(";");
  if (panel.type === "row") return `<div class="row" style="${style}">▾ ${escape(panel.title)}</div>`;
  const size = { width: place.width - 16, height: place.height - 36 };
  const body = drawn(panel, found.get(`${dashboard.uid}/${panel.id}`) ?? [], size, answers);
  return `<div class="panel" style="${style}"><h2>${escape(panel.title)}</h2>${body}</div>`;
}

function page(dashboard) {
  const height = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * (ROW + GAP);
  const said = ({ label, name, current }) => `${label ?? name}: ${[current?.text ?? "default"].flat().join(", ")}`;
  const variables = dashboard.templating.list.map((each) => `<span>${escape(said(each))}</span>`);
  const html = `<!doctype html><meta charset="utf-8"><title>${escape(dashboard.title)}</title><style>
    body{margin:0;padding:16px;background:#111217;color:#ccccdc;font:12px Inter,"DejaVu Sans",sans-serif;width:${WIDTH}px}
    h1{font-size:18px;margin:0 0 6px} .variables span{background:#22252b;padding:4px 8px;margin-right:8px;border-radius:2px}
    .grid{position:relative;height:${height}px;margin-top:14px} .grid>div{position:absolute;box-sizing:border-box}
    .row{font-size:14px;padding-top:4px} .panel{background:#181b1f;border:1px solid #2c3038;border-radius:2px;padding:0 8px;overflow:hidden}
    h2{font-size:13px;font-weight:500;margin:0;line-height:30px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
    .empty{color:#ff7383;text-align:center;padding-top:20px}</style>
    <h1>${escape(dashboard.title)}</h1><div class="variables">${variables.join("")}</div>
    <div class="grid">${dashboard.panels.map((panel) => box(panel, dashboard)).join("\n")}</div>`;
  return { html, height: height + 110 };
}

mkdirSync(out, { recursive: true });
for (const name of readdirSync(join(here, "../grafana")).filter((each) => each.endsWith(".json"))) {
  const { html, height } = page(JSON.parse(readFileSync(join(here, "../grafana", name), "utf8")));
  const file = resolve(out, name.replace(".json", ".html"));
  writeFileSync(file, html);
  if (browser) {
    const picture = file.replace(".html", ".png");
    const size = `--window-size=${WIDTH + 32},${height}`;
    const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size, `--screenshot=${picture}`];
    execFileSync(browser, [...flags, `file://${file}`], { stdio: "ignore" });
    console.log(picture);
  } else {
    console.log(`${file} (no Chromium is here to make a picture of it: open it in a browser)`);
  }
}
