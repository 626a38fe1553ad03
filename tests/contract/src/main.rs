//! Writes `docs/events/asyncapi.yaml`; with `release VERSION` also `docs/events/released/VERSION.json`, which from then
//! on is never changed.

use anyhow::{Context, bail};
use understudy_contract::{compatible, document, folder};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let document = document::document();
    let file = folder().join("asyncapi.yaml");
    std::fs::write(&file, document::yaml(&document)?)
        .with_context(|| format!("can't write {}", file.display()))?;
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => {}
        ["release", version] => {
            for (released, before) in compatible::released()? {
                let broken = compatible::broken(&before, &document);
                if !broken.is_empty() {
                    bail!("consumers of {released} would break:\n{}", broken.join("\n"));
                }
            }
            let file = folder().join("released").join(format!("{version}.json"));
            if file.exists() {
                bail!("{} is released: it stays as it is", file.display());
            }
            std::fs::write(&file, serde_json::to_string_pretty(&document)? + "\n")?;
        }
        _ => bail!("nothing, or: release VERSION"),
    }
    Ok(())
}
