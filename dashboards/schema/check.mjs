// Holds dashboards against Grafana's own types: the npm package @grafana/schema, which Grafana is built with.
//
//   node check.mjs TOOLS DASHBOARD.json...
//
// TOOLS is a folder with `node_modules` in which @grafana/schema and typescript are. A dashboard is put into a TypeScript
// file as a literal of the type that Grafana gives it, each panel with the options and the field settings of its kind,
// and TypeScript's compiler says what is no part of it: a name that there is not, a value that can't be, a part that is
// missing. What Grafana itself leaves open (queries, a variable's query) stays open.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";

const [tools, ...dashboards] = process.argv.slice(2);
if (!tools || dashboards.length === 0) {
  console.error("usage: node check.mjs TOOLS DASHBOARD.json...");
  process.exit(2);
}
const schema = resolve(tools, "node_modules/@grafana/schema/dist/types");
const ts = createRequire(resolve(tools, "node_modules/"))("typescript");

/** Kinds of panels that are used here: Grafana's name, its folder, and whether it has field settings of its own. */
const kinds = {
  timeseries: ["timeseries", true],
  "state-timeline": ["statetimeline", true],
  stat: ["stat", false],
  bargauge: ["bargauge", false],
  gauge: ["gauge", false],
  table: ["table", true],
};

const types = `
import type { AnnotationQuery, Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel } from ${JSON.stringify(join(schema, "index"))};
${Object.values(kinds)
  .map(([folder]) => `import type * as ${folder} from ${JSON.stringify(join(schema, "raw/composable", folder, "panelcfg/x/types.gen"))};`)
  .join("\n")}

/** As it is in JSON: an enumeration is its values. */
type Plain<T> = unknown extends T ? T
  : T extends string ? \`\${T}\`
  : T extends number | boolean | null | undefined ? T
  : T extends Array<infer Each> ? Array<Plain<Each>>
  : { [Key in keyof T]: Plain<T[Key]> };

/** A panel of one kind. Options that are left out are Grafana's defaults. */
type Kind<Name, Options, Custom> = Plain<Omit<Panel, "type" | "options" | "fieldConfig">> & {
  type: Name;
  options: Plain<Partial<Options>>;
  fieldConfig: Plain<Omit<FieldConfigSource, "defaults">> & {
    defaults: Plain<Omit<FieldConfig, "custom">> & { custom?: Plain<Partial<Custom>> };
  };
};
/** What Grafana's data source for Prometheus adds to an annotation; its types are in no package that can be had alone. */
type OfPrometheus = { expr?: string; step?: string; titleFormat?: string; textFormat?: string };
type Row = Plain<Omit<RowPanel, "type">> & { type: "row" };
type AnyPanel = Row
${Object.entries(kinds)
  .map(([name, [folder, custom]]) => `  | Kind<"${name}", ${folder}.Options, ${custom ? `${folder}.FieldConfig` : "Record<never, never>"}>`)
  .join("\n")};
type Whole = Plain<Omit<Dashboard, "panels" | "annotations">> & {
  annotations: { list: Array<Plain<AnnotationQuery> & OfPrometheus> };
  panels: AnyPanel[];
};
`;

/** What TypeScript says of one dashboard. */
function faults(file, folder) {
  const dashboard = JSON.parse(readFileSync(file, "utf8"));
  const path = join(folder, `${basename(file, ".json")}.ts`);
  const begin = `${types}\nexport const dashboard: Whole = `;
  writeFileSync(path, `${begin}${JSON.stringify(dashboard, null, 2)};\n`);
  const program = ts.createProgram([path], {
    noEmit: true,
    strict: true,
    skipLibCheck: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    typeRoots: [],
    types: [],
  });
  const first = begin.split("\n").length - 1;
  return ts.getPreEmitDiagnostics(program).map((fault) => {
    const words = ts.flattenDiagnosticMessageText(fault.messageText, "\n  ");
    const line = fault.file ? fault.file.getLineAndCharacterOfPosition(fault.start).line - first + 1 : 0;
    return `${file}, line ${line} of it as JSON: ${words}`;
  });
}

const folder = mkdtempSync(join(tmpdir(), "understudy-schema-"));
try {
  const found = dashboards.flatMap((file) => faults(file, folder));
  found.forEach((fault) => console.error(fault));
  if (found.length === 0) {
    const { version } = JSON.parse(readFileSync(join(schema, "../../package.json"), "utf8"));
    console.log(`${dashboards.length} dashboard(s) are as @grafana/schema ${version} has them`);
  }
  process.exitCode = found.length === 0 ? 0 : 1;
} finally {
  rmSync(folder, { recursive: true });
}
