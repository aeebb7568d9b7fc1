//! Deserialisation of network configurations from JSON, with helpful errors.

use serde::Serialize;
use serde_json::Value;
use tomograd_core::{Error, Result, unknown_name};

use crate::registry::Config;

pub(crate) fn json(plain: &impl Serialize) -> Result<Value> {
    serde_json::to_value(plain).map_err(|error| Error::argument("registry", "it has no JSON").source(error))
}

/// The configuration that `given` describes, and its JSON with all defaults.
pub(crate) fn checked<C: Config>(name: &str, given: &Value) -> Result<(C, Value)> {
    let config: C = match serde_path_to_error::deserialize(given) {
        Ok(config) => config,
        Err(error) => {
            // A missing field is often a misspelt one, so unknown fields are reported first.
            if let Some(preset) = C::presets().first() {
                known_fields(given, &json(&preset.config)?, name)?;
            }
            let (path, cause) = (error.path().to_string(), error.into_inner());
            let field = if path == "." { String::new() } else { format!("{path}: ") };
            return Err(Error::argument(
                "registry",
                format!("the configuration of {name} doesn't fit: {field}{cause}"),
            )
            .source(cause));
        }
    };
    let full = json(&config)?;
    known_fields(given, &full, name)?;
    Ok((config, full))
}

/// Checks that `full` has all fields of `given`, at any depth: serde would silently ignore a misspelt optional field.
fn known_fields(given: &Value, full: &Value, place: &str) -> Result<()> {
    match (given, full) {
        (Value::Object(given), Value::Object(full)) => {
            given.iter().try_for_each(|(field, value)| match full.get(field) {
                Some(known) => known_fields(value, known, &format!("{place}.{field}")),
                None => {
                    let known: Vec<&str> =
                        full.keys().map(String::as_str).filter(|&known| known != "network").collect();
                    Err(unknown_name("registry", "field", field, known).within(place))
                }
            })
        }
        (Value::Array(given), Value::Array(full)) => {
            let mut pairs = given.iter().zip(full).enumerate();
            pairs.try_for_each(|(at, (given, full))| known_fields(given, full, &format!("{place}[{at}]")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unknown_field_at_any_depth_is_named_with_the_nearest() {
        let full = json!({"network": "x", "stem": {"width": 3}, "blocks": [{"kernel": 3, "act": {"slope": 0.1}}]});
        assert!(known_fields(&json!({"network": "x", "blocks": [{"act": {}}]}), &full, "x").is_ok());
        for (given, expected) in [
            (json!({"stem": {"widht": 1}}), "x.stem: registry: no field is called widht, did you mean width?"),
            (
                json!({"blocks": [{"kernle": 1}]}),
                "x.blocks[0]: registry: no field is called kernle, did you mean kernel?",
            ),
            (json!({"blocks": [{"act": {"slop": 1}}]}), "x.blocks[0].act: registry: no field is called slop"),
            (json!({"nonsense": 1}), "x: registry: no field is called nonsense; expected one of "),
        ] {
            let error = known_fields(&given, &full, "x").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
