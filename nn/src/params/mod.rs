//! Parameters and buffers: an ordered store, addressed by name, that owns all values.

mod scope;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub use scope::Scope;
use tomograd_core::{DType, Device, Error, ErrorKind, Result, Seed, Tensor};
use tomograd_kernels::{
    elementwise::{BinaryFunction, Chain, Function, Step},
    methods::Operand,
};

use crate::{
    StageInfo, check,
    fold::{Folds, Link},
};

/// A reference to a parameter or buffer in a store. Layers hold slots instead of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    structure: u64,
    pub(crate) index: usize,
}

impl Slot {
    /// The identifier of the stores in which the slot is valid.
    pub(crate) fn structure(self) -> u64 {
        self.structure
    }
}

/// Information about a parameter, for choosing groups.
#[derive(Debug, Clone)]
pub struct ParamInfo<'a> {
    /// The full name and state-dict key, such as `enc.0.1.weight`.
    pub name: &'a str,
    /// The sizes of the axes.
    pub shape: &'a [usize],
    /// Whether optimizers leave it unchanged.
    pub frozen: bool,
}

impl ParamInfo<'_> {
    /// Whether it has two axes or more, as weights have, but not biases and the parameters of norms.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() > 1
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) value: Tensor,
    pub(crate) is_buffer: bool,
    pub(crate) frozen: bool,
    /// Whether the network itself froze it, since it doesn't use it: it stays frozen.
    unused: bool,
}

/// The structure of a store as passes and updates keep it: for each entry, in order, the name, whether it is a buffer, and
/// whether it is constant (frozen or a buffer).
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) structure: u64,
    pub(crate) names: Vec<String>,
    pub(crate) buffers: Vec<bool>,
    pub(crate) constant: Vec<bool>,
    pub(crate) stages: Vec<StageInfo>,
    pub(crate) folds: Arc<Folds>,
}

impl Outline {
    pub(crate) fn of(params: &Params) -> Self {
        let entries = || params.entries.iter();
        Self {
            structure: params.structure,
            names: entries().map(|entry| entry.name.clone()).collect(),
            buffers: entries().map(|entry| entry.is_buffer).collect(),
            constant: entries().map(|entry| entry.is_buffer || entry.frozen).collect(),
            stages: params.stages.clone(),
            folds: params.folds.clone(),
        }
    }

    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|other| other == name)
    }
}

/// All parameters and buffers of a network, in the order of creation.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{Linear, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut scope = params.root();
/// Linear::new(scope.at("body"), 3, 4)?;
/// Linear::new(scope.at("head"), 4, 2)?;
/// assert_eq!(params.count(), 3 * 4 + 4 + 4 * 2 + 2);
/// let names: Vec<&str> = params.state().map(|(name, _)| name).collect();
/// assert_eq!(names, ["body.weight", "body.bias", "head.weight", "head.bias"]);
/// params.set("head.bias", Tensor::zeros(&[2], DType::F32, Device::Cpu)?)?;
/// params.freeze(|p| p.name.starts_with("body."));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Params {
    /// The identifier of this store.
    store: u64,
    /// The identifier shared with replicas, whose slots are the same.
    structure: u64,
    device: Device,
    dtype: DType,
    seed: Seed,
    pub(crate) entries: Vec<Entry>,
    pub(crate) by_name: BTreeMap<String, usize>,
    /// All names in the order of registration, so that the latest ones can be removed again.
    named: Vec<String>,
    /// The stages whose feature maps can be requested.
    pub(crate) stages: Vec<StageInfo>,
    /// The convolution that each batch norm follows.
    pub(crate) links: Vec<Arc<Link>>,
    /// The batch norms that are folded into convolutions.
    pub(crate) folds: Arc<Folds>,
}

static NEXT_STORE: AtomicU64 = AtomicU64::new(1);

impl Params {
    /// An empty store of f32 parameters on `device`. The initial values of each parameter depend on `seed` and its name.
    pub fn new(device: Device, seed: Seed) -> Self {
        let store = NEXT_STORE.fetch_add(1, Ordering::Relaxed);
        Self {
            store,
            structure: store,
            device,
            dtype: DType::F32,
            seed,
            entries: Vec::new(),
            by_name: BTreeMap::new(),
            named: Vec::new(),
            stages: Vec::new(),
            links: Vec::new(),
            folds: Arc::default(),
        }
    }

    /// Sets the dtype of the parameters, a floating-point one.
    #[must_use]
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The root scope, in which a network creates its parameters.
    pub fn root(&mut self) -> Scope<'_> {
        Scope { params: self, prefix: String::new() }
    }

    /// The device that holds the parameters.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The dtype of the parameters.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn store(&self) -> u64 {
        self.store
    }

    pub(crate) fn structure(&self) -> u64 {
        self.structure
    }

    /// The number of elements of all parameters; buffers don't count.
    pub fn count(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.is_buffer).map(|entry| entry.value.count()).sum()
    }

    /// Information about each parameter, in order.
    pub fn parameters(&self) -> impl Iterator<Item = ParamInfo<'_>> {
        let indices = (0..self.entries.len()).filter(|&index| !self.entries[index].is_buffer);
        indices.map(|index| self.info(index))
    }

    /// Names and values of parameters and buffers, in order: the state dict. A parameter with several names has its first.
    pub fn state(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|entry| (&entry.name[..], &entry.value))
    }

    /// All names in the order in which they were given, each with the name that [`state`](Self::state) has for the same
    /// value: the keys of a state dict that has a parameter under each of its names.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named.iter().map(|name| (&name[..], &self.entries[self.by_name[name]].name[..]))
    }

    /// The value called `name`.
    ///
    /// # Errors
    /// When it doesn't exist.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.by_name.get(name).map(|&index| &self.entries[index].value).ok_or_else(|| unknown(name))
    }

    /// Replaces the value called `name`.
    ///
    /// # Errors
    /// When it doesn't exist, or the new value has another shape, dtype or device.
    pub fn set(&mut self, name: &str, value: Tensor) -> Result<()> {
        let index = *self.by_name.get(name).ok_or_else(|| unknown(name))?;
        self.entries[index].value = self.fitting(index, name, &value)?;
        self.unfold();
        Ok(())
    }

    /// Checks that `value` fits the entry at `index`, and returns it.
    fn fitting(&self, index: usize, name: &str, value: &Tensor) -> Result<Tensor> {
        let old = &self.entries[index].value;
        if old.shape() != value.shape() || old.dtype() != value.dtype() || old.device() != value.device() {
            return Err(Error::shape("params", format!("{name} is {value:?}")).expected(format!("{old:?}")));
        }
        value.contiguous()
    }

    /// Replaces all values by those of `state`, which must have exactly the same names; a parameter with several names
    /// needs only one of them. [`import`](Self::import) reads files with other names and dtypes.
    ///
    /// # Errors
    /// When a name is missing, unexpected or given twice, a value doesn't fit, or two names of one parameter have different
    /// values; then nothing is changed.
    pub fn load(&mut self, state: impl IntoIterator<Item = (String, Tensor)>) -> Result<()> {
        let mut by_name = BTreeMap::new();
        for (name, value) in state {
            if let Some((name, _)) = by_name.remove_entry(&name) {
                return Err(Error::new(ErrorKind::Name, "load", format!("the name {name} is given twice")));
            }
            by_name.insert(name, value);
        }
        let state = by_name;
        let mut found = vec![false; self.entries.len()];
        state.keys().filter_map(|name| self.by_name.get(name)).for_each(|&index| found[index] = true);
        let missing: Vec<&str> =
            self.entries.iter().zip(found).filter(|(_, found)| !found).map(|(entry, _)| &entry.name[..]).collect();
        let unexpected: Vec<&str> =
            state.keys().filter(|&name| !self.by_name.contains_key(name)).map(String::as_str).collect();
        if !missing.is_empty() || !unexpected.is_empty() {
            return Err(Error::new(
                ErrorKind::Name,
                "load",
                format!("missing: [{}]; unexpected: [{}]", missing.join(", "), unexpected.join(", ")),
            )
            .expected("the names of the network"));
        }
        let mut values: Vec<Option<(String, Tensor)>> = vec![None; self.entries.len()];
        for (name, value) in state {
            let index = self.by_name[&name];
            let value = self.fitting(index, &name, &value).map_err(|error| error.within("load"))?;
            if let Some((other, first)) = &values[index]
                && bits(first)? != bits(&value)?
            {
                return Err(Error::new(
                    ErrorKind::Argument,
                    "load",
                    format!("{other} and {name} have different values"),
                )
                .expected("one value, since they are names of one parameter"));
            }
            values[index] = Some((name, value));
        }
        for (entry, (_, value)) in self.entries.iter_mut().zip(values.into_iter().flatten()) {
            entry.value = value;
        }
        self.unfold();
        Ok(())
    }

    /// Freezes the parameters for which `choose` is true, and unfreezes the others, except for those that the network doesn't
    /// use ([`Scope::freeze`]). An optimizer changes neither a frozen parameter nor its state, even if an earlier update has a
    /// gradient for it.
    pub fn freeze(&mut self, choose: impl Fn(&ParamInfo<'_>) -> bool) {
        for index in 0..self.entries.len() {
            let chosen = !self.entries[index].is_buffer && choose(&self.info(index));
            self.entries[index].frozen = chosen || self.entries[index].unused;
        }
    }

    /// Updates an exponential moving average by `other`: parameters become decay · own + (1 − decay) · other's; buffers are
    /// copied. The average is a [`replica`](Self::replica) made at the start.
    ///
    /// # Errors
    /// When the decay isn't in [0, 1], the two don't have the same names, shapes and dtypes, or memory runs out; then nothing
    /// is changed.
    pub fn ema_update(&mut self, other: &Params, decay: f64) -> Result<()> {
        check::number("ema_update", "the decay", decay, 0.0..=1.0)?;
        [&self.folds, &other.folds].iter().try_for_each(|folds| folds.check(true))?;
        let same = |(a, b): (&Entry, &Entry)| {
            let (x, y) = (&a.value, &b.value);
            a.name == b.name && x.shape() == y.shape() && x.dtype() == y.dtype() && x.device() == y.device()
        };
        if self.entries.len() != other.entries.len() || !self.entries.iter().zip(&other.entries).all(same) {
            return Err(Error::new(ErrorKind::Name, "ema_update", "the two stores don't hold the same parameters")
                .expected("a replica of the parameters"));
        }
        let moved = |(own, other): (&Entry, &Entry)| match own.is_buffer {
            true => Ok(other.value.clone()),
            false => blend(&own.value, &other.value, 1.0 - decay),
        };
        let values = self.entries.iter().zip(&other.entries).map(moved).collect::<Result<Vec<Tensor>>>()?;
        for (own, value) in self.entries.iter_mut().zip(values) {
            own.value = value;
        }
        self.unfold();
        Ok(())
    }

    /// A copy on which the same layers run, for averages and parallel passes; it shares memory until either changes. An
    /// optimizer made for one rejects the other, and no parameters can be added to a replica.
    pub fn replica(&self) -> Self {
        let store = NEXT_STORE.fetch_add(1, Ordering::Relaxed);
        let (entries, by_name) = (self.entries.clone(), self.by_name.clone());
        Self {
            store,
            structure: self.structure,
            device: self.device,
            dtype: self.dtype,
            seed: self.seed,
            entries,
            by_name,
            named: self.named.clone(),
            stages: self.stages.clone(),
            links: self.links.clone(),
            folds: self.folds.clone(),
        }
    }

    pub(crate) fn info(&self, index: usize) -> ParamInfo<'_> {
        let entry = &self.entries[index];
        ParamInfo { name: &entry.name, shape: entry.value.shape(), frozen: entry.frozen }
    }

    /// Checks that the store isn't a replica, to which nothing can be added.
    pub(crate) fn check_own(&self, name: &str) -> Result<()> {
        if self.store == self.structure {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Name, "params", format!("{name} is added to a replica"))
            .expected("a store of its own for a new network"))
    }

    /// Registers `name` for the entry at `index`.
    fn name(&mut self, name: &str, index: usize) -> Result<()> {
        self.check_own(name)?;
        if self.by_name.contains_key(name) {
            return Err(Error::new(ErrorKind::Name, "params", format!("the name {name} is given twice"))
                .expected("a name of its own for each parameter"));
        }
        self.by_name.insert(name.to_owned(), index);
        self.named.push(name.to_owned());
        Ok(())
    }

    fn add(&mut self, name: String, value: Tensor, is_buffer: bool) -> Result<Slot> {
        let index = self.entries.len();
        self.name(&name, index)?;
        self.entries.push(Entry { name, value, is_buffer, frozen: false, unused: false });
        Ok(Slot { structure: self.structure, index })
    }
}

/// The bits of the elements, so that NaN compares equal.
pub(crate) fn bits(value: &Tensor) -> Result<Vec<u64>> {
    match value.device() {
        Device::Meta => Ok(Vec::new()),
        _ => Ok(value.to(Device::Cpu)?.to_vec_f64()?.into_iter().map(f64::to_bits).collect()),
    }
}

/// from + weight · (to − from).
pub(crate) fn blend(from: &Tensor, to: &Tensor, weight: f64) -> Result<Tensor> {
    let chain = Chain::binary(BinaryFunction::Sub)
        .then(Step::Unary(Function::Multiply(weight)))
        .then(Step::Binary(BinaryFunction::Add, 1));
    Tensor::apply(chain, &[to, from])
}

/// Checks that a slot or stage of the stores `given` belongs to the stores `structure`.
pub(crate) fn check_structure(structure: u64, given: u64) -> Result<()> {
    if given == structure {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Name, "params", "a layer of another store is used")
        .expected("layers made from these parameters"))
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::Name, "params", format!("nothing is called {name}"))
}
