//! The network that a command line names, with its changed fields.

use clap::Args;
use serde_json::{Map, Value};
use tomograd::{
    core::unknown_name,
    models::registry::{self, Family, Preset},
    prelude::*,
};

/// A network on the command line.
#[derive(Args)]
pub(crate) struct Choice {
    /// A preset, or a family for its first preset; `tomograd zoo list` has them all
    name: String,
    /// Sets a field of the configuration; VALUE is JSON or plain text, FIELD may reach inside: layers.0=2, vae.latent=64
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,
}

/// The family, preset and configuration that were chosen.
pub(crate) struct Chosen {
    pub(crate) family: &'static Family,
    /// The name of the preset.
    pub(crate) preset: &'static str,
    /// The configuration with the changes of the command line; the registry hasn't checked it yet.
    pub(crate) config: Value,
    /// The spatial size for which the preset was published, where that isn't a usual one.
    pub(crate) size: Option<Vec<usize>>,
    /// The preset's source, or its family's.
    pub(crate) source: &'static str,
}

impl Choice {
    /// Finds the preset and applies the changes.
    ///
    /// # Errors
    /// When the name is unknown (the error has the nearest one), or a change can't be applied.
    pub(crate) fn find(&self) -> Result<Chosen> {
        let mut chosen = Chosen::named(&self.name)?;
        for change in &self.set {
            set(&mut chosen.config, change)?;
        }
        Ok(chosen)
    }
}

impl Chosen {
    pub(crate) fn new(family: &'static Family, preset: Preset<Value>) -> Self {
        let source = preset.source.unwrap_or(family.card().source);
        Self { family, preset: preset.name, config: preset.config, size: preset.size, source }
    }

    /// The preset of this name, or the first preset of the family of this name.
    fn named(name: &str) -> Result<Self> {
        let mut known = Vec::new();
        for family in registry::families() {
            for preset in family.presets()? {
                if preset.name == name {
                    return Ok(Self::new(family, preset));
                }
                known.push(preset.name);
            }
        }
        for family in registry::families() {
            if family.name() == name
                && let Some(preset) = family.presets()?.into_iter().next()
            {
                return Ok(Self::new(family, preset));
            }
            known.push(family.name());
        }
        known.dedup();
        Err(unknown_name("zoo", "network", name, known))
    }

    /// The network with parameters on [`Device::Meta`], and with its configuration with all defaults.
    ///
    /// # Errors
    /// When the registry refuses the configuration.
    pub(crate) fn model(&self) -> Result<Model> {
        Model::new(&self.config, Device::Meta, Seed::new(0))
    }
}

/// Applies `FIELD=VALUE` to a configuration. Fields that it doesn't have are added, so that the registry reports them.
fn set(config: &mut Value, change: &str) -> Result<()> {
    let fail = |what: String| Error::argument("zoo", what).expected("--set FIELD=VALUE, such as --set classes=3");
    let Some((path, text)) = change.split_once('=').filter(|(path, _)| !path.is_empty()) else {
        return Err(fail(format!("--set {change}")));
    };
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let mut place = config;
    for part in path.split('.') {
        let inside = match place {
            Value::Array(entries) => {
                let length = entries.len();
                let entry = part.parse().ok().and_then(|index: usize| entries.get_mut(index));
                entry
                    .ok_or_else(|| fail(format!("--set {change}: {part} isn't the index of one of {length} entries")))?
            }
            Value::Object(fields) => fields.entry(part).or_insert(Value::Null),
            // An optional part that the preset doesn't have.
            Value::Null => {
                *place = Value::Object(Map::new());
                match place {
                    Value::Object(fields) => fields.entry(part).or_insert(Value::Null),
                    _ => return Err(fail(format!("--set {change}"))),
                }
            }
            other => return Err(fail(format!("--set {change}: there is nothing called {part} inside of {other}"))),
        };
        place = inside;
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_json_or_text_at_any_depth() {
        let mut config = json!({"network": "x", "widths": [1, 2], "stem": {"width": 3}, "head": null});
        for change in ["widths.1=5", "stem.width=8", "block=basic", "bias=false", "head.kind=\"a=b\"", "new=[1, 2]"] {
            set(&mut config, change).unwrap();
        }
        let expected = json!({
            "network": "x", "widths": [1, 5], "stem": {"width": 8}, "head": {"kind": "a=b"},
            "block": "basic", "bias": false, "new": [1, 2]
        });
        assert_eq!(config, expected);
        for change in ["widths", "=3", "widths.2=1", "widths.x=1", "network.y=2", "stem.width.z=1"] {
            let error = set(&mut config, change).unwrap_err().to_string();
            assert!(error.contains(change) && error.contains("--set FIELD=VALUE"), "{error}");
        }
    }
}
