//! The state of a run in a checkpoint, besides weights and optimizers.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tomograd_core::{Error, Result};
use tomograd_nn::Loaded;

use super::{learner::Settings, log::Values};

/// The name of the text entry in a checkpoint.
pub(super) const TEXT: &str = "trainer";

/// The settings that a resumed run must share with the original one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The words of the seed.
    pub(super) seed: [u64; 2],
    /// The number of steps per epoch.
    pub(super) steps: u64,
    /// The number of epochs, if a learning-rate schedule depends on it.
    pub(super) epochs: Option<u64>,
    pub(super) learners: Vec<(String, Settings)>,
}

/// The progress of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Completed epochs.
    pub(super) epoch: u64,
    /// Completed steps of the current epoch.
    pub(super) step: u64,
    /// The best score so far.
    pub(super) best: Option<f64>,
    /// Validations since the best score.
    pub(super) since_best: u64,
    /// Values logged by the steps of the current epoch.
    pub(super) values: Values,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State<R, P> {
    version: u64,
    run: R,
    progress: P,
}

const VERSION: u64 = 1;

pub(super) fn to_json(run: &Run, progress: &Progress) -> Result<String> {
    serde_json::to_string(&State { version: VERSION, run, progress })
        .map_err(|error| Error::argument("trainer", "the state has no JSON").source(error))
}

/// The progress in a checkpoint, after checking that its run settings, network configuration and preparation are those of
/// this run.
pub(super) fn progress(
    loaded: &Loaded,
    path: &Path,
    run: &Run,
    [config, preparation]: [&Value; 2],
) -> Result<Progress> {
    let text = loaded.text(TEXT).map_err(|_| {
        Error::format("resume", format!("{} has no state of a trainer", path.display())).expected(
            "a checkpoint that a Trainer of this version wrote; Loaded::restore takes weights alone out of any",
        )
    })?;
    let unreadable = |error| Error::format("resume", format!("the state of {} can't be read: {error}", path.display()));
    let state: State<Value, Progress> = serde_json::from_str(text).map_err(unreadable)?;
    if state.version != VERSION {
        return Err(Error::format("resume", format!("{} has a state of version {}", path.display(), state.version))
            .expected(format!("version {VERSION}")));
    }
    let own = serde_json::to_value(run).map_err(unreadable)?;
    let parts = ["seed", "steps", "epochs", "learners"].map(|part| (part, &state.run[part], &own[part]));
    let kept = [
        loaded.text("config").is_ok().then(|| loaded.config_as()),
        loaded.preparation().map(|_| loaded.preparation_as()),
    ];
    let [kept_config, kept_preparation] = kept.map(|kept: Option<Result<Value>>| kept.unwrap_or(Ok(Value::Null)));
    let (kept_config, kept_preparation) = (kept_config?, kept_preparation?);
    let files = [("configuration", &kept_config, config), ("preparation", &kept_preparation, preparation)];
    for (part, found, own) in parts.into_iter().chain(files) {
        if found != own {
            return Err(Error::argument("resume", format!("{} is of another run: {part} {found}", path.display()))
                .expected(own.to_string()));
        }
    }
    if state.progress.step > run.steps {
        return Err(Error::format("resume", format!("{} is at step {}", path.display(), state.progress.step))
            .expected(format!("at most the {} of an epoch", run.steps)));
    }
    Ok(state.progress)
}
