// Reads an AsyncAPI document with AsyncAPI's own parser, and ends with 1 if it finds an error in it.
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

new Parser().parse(readFileSync(process.argv[2], "utf8")).then(({ document, diagnostics }) => {
  for (const { severity, message, path } of diagnostics) {
    console.log(`${["error", "warning", "information", "hint"][severity]}: ${path.join("/")}: ${message}`);
  }
  if (!document) process.exit(1);
  console.log(`${document.messages().all().length} messages`);
});
