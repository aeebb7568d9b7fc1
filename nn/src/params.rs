//! Parameters and buffers: an owned, ordered store, addressed by name.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Seed, Tensor};
use tomograd_kernels::{
    elementwise::{BinaryFunction, Chain, Function, Step},
    methods::Operand,
};

use crate::{
    StageInfo, check,
    fold::{Folds, Link},
    init::Init,
};

/// A place in a store. Layers hold these instead of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    structure: u64,
    pub(crate) index: usize,
}

impl Slot {
    /// The number of the stores that it is a place in.
    pub(crate) fn structure(self) -> u64 {
        self.structure
    }
}

/// What is known of a parameter, for choosing groups.
#[derive(Debug, Clone)]
pub struct ParamInfo<'a> {
    /// The full name, which is its state-dict key: `enc.0.1.weight`.
    pub name: &'a str,
    /// The sizes of the axes.
    pub shape: &'a [usize],
    /// Whether it is kept as it is.
    pub frozen: bool,
}

impl ParamInfo<'_> {
    /// Whether it has two axes or more: weights, but not biases and the parameters of norms.
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
}

/// What passes and updates know of a store: for each entry, in their order, the name, whether it is a buffer, and whether
/// nothing is to be learned there.
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

/// All parameters and buffers of a network, in the order of their making.
#[derive(Debug)]
pub struct Params {
    /// This store's own number.
    store: u64,
    /// The number that replicas have in common: their slots are the same.
    structure: u64,
    device: Device,
    dtype: DType,
    seed: Seed,
    pub(crate) entries: Vec<Entry>,
    pub(crate) by_name: BTreeMap<String, usize>,
    /// All names in the order of their giving, so that the last ones can be taken back.
    named: Vec<String>,
    /// Places whose feature maps can be asked for.
    pub(crate) stages: Vec<StageInfo>,
    /// What each batch norm follows.
    pub(crate) links: Vec<Arc<Link>>,
    /// Which batch norms are folded into convolutions.
    pub(crate) folds: Arc<Folds>,
}

static NEXT_STORE: AtomicU64 = AtomicU64::new(1);

impl Params {
    /// An empty store of f32 parameters on `device`; each is filled by `seed` and its own name.
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

    /// The same, with parameters of `dtype`, a floating-point one.
    #[must_use]
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Where a network begins to name its parameters.
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

    /// What is known of each parameter, in their order.
    pub fn parameters(&self) -> impl Iterator<Item = ParamInfo<'_>> {
        let indices = (0..self.entries.len()).filter(|&index| !self.entries[index].is_buffer);
        indices.map(|index| self.info(index))
    }

    /// Names and values of parameters and buffers, in their order: the state dict. One with several names has its first.
    pub fn state(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|entry| (&entry.name[..], &entry.value))
    }

    /// The value called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.by_name.get(name).map(|&index| &self.entries[index].value).ok_or_else(|| unknown(name))
    }

    /// Replaces the value called `name`.
    ///
    /// # Errors
    /// When there is none, or the new value has another shape, dtype or device.
    pub fn set(&mut self, name: &str, value: Tensor) -> Result<()> {
        let index = *self.by_name.get(name).ok_or_else(|| unknown(name))?;
        self.entries[index].value = self.fitting(index, name, &value)?;
        self.unfold();
        Ok(())
    }

    /// `value` as the entry at `index` keeps it.
    fn fitting(&self, index: usize, name: &str, value: &Tensor) -> Result<Tensor> {
        let old = &self.entries[index].value;
        if old.shape() != value.shape() || old.dtype() != value.dtype() || old.device() != value.device() {
            return Err(Error::shape("params", format!("{name} is {value:?}")).expected(format!("{old:?}")));
        }
        value.contiguous()
    }

    /// Replaces all values by those of `state`, which must have exactly the same names; for a parameter with several
    /// names any of them is enough. [`import`](Self::import) takes files of other programs, with other names and dtypes.
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

    /// Freezes the parameters for which `choose` is true, and unfreezes the others. An optimizer leaves a frozen parameter and
    /// its state alone, also when an update from before has a gradient for it.
    pub fn freeze(&mut self, choose: impl Fn(&ParamInfo<'_>) -> bool) {
        for index in 0..self.entries.len() {
            self.entries[index].frozen = !self.entries[index].is_buffer && choose(&self.info(index));
        }
    }

    /// Moves a running average towards `other`: parameters become decay · own + (1 − decay) · other's, buffers the other's.
    /// The average is a [`replica`](Self::replica) made at the start.
    ///
    /// # Errors
    /// When the decay isn't in [0, 1], the two don't have the same names, shapes and dtypes, or memory runs out; then nothing
    /// is changed.
    pub fn ema_update(&mut self, other: &Params, decay: f64) -> Result<()> {
        check::number("ema_update", "the decay", decay, 0.0..=1.0)?;
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

    /// A copy on which the same layers run, for averages and parallel runs; it shares memory until one of both changes. An
    /// optimizer made for one refuses the other, and a replica takes no new parameters.
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

    /// That the store isn't a replica, which can't grow.
    pub(crate) fn check_own(&self, name: &str) -> Result<()> {
        if self.store == self.structure {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Name, "params", format!("{name} is added to a replica"))
            .expected("a store of its own for a new network"))
    }

    /// Writes down that `name` means the entry `index`.
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
        self.entries.push(Entry { name, value, is_buffer, frozen: false });
        Ok(Slot { structure: self.structure, index })
    }
}

/// The elements' bits, so that NaN equals itself.
pub(crate) fn bits(value: &Tensor) -> Result<Vec<u64>> {
    Ok(value.to_vec_f64()?.into_iter().map(f64::to_bits).collect())
}

/// from + weight · (to − from).
pub(crate) fn blend(from: &Tensor, to: &Tensor, weight: f64) -> Result<Tensor> {
    let chain = Chain::binary(BinaryFunction::Sub)
        .then(Step::Unary(Function::Multiply(weight)))
        .then(Step::Binary(BinaryFunction::Add, 1));
    Tensor::apply(chain, &[to, from])
}

/// That a slot or stage of the stores `given` is one of the stores `structure`.
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

/// A place in the tree of names, where a layer makes its parameters.
#[derive(Debug)]
pub struct Scope<'a> {
    pub(crate) params: &'a mut Params,
    prefix: String,
}

impl Scope<'_> {
    /// The scope `name` inside of this one.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = self.full(&name.to_string());
        Scope { params: self.params, prefix }
    }

    /// The full name of the scope: the path of the layer.
    pub fn path(&self) -> &str {
        &self.prefix
    }

    /// Makes what `make` makes in this scope: all of it or, when it fails, nothing.
    ///
    /// # Errors
    /// When `make` fails.
    pub fn whole<T>(&mut self, make: impl FnOnce(&mut Scope<'_>) -> Result<T>) -> Result<T> {
        let (entries, names) = (self.params.entries.len(), self.params.named.len());
        let (stages, links) = (self.params.stages.len(), self.params.links.len());
        let made = make(&mut Scope { params: self.params, prefix: self.prefix.clone() });
        if made.is_err() {
            self.params.entries.truncate(entries);
            self.params.stages.truncate(stages);
            self.params.links.truncate(links);
            for name in self.params.named.drain(names..) {
                self.params.by_name.remove(&name);
            }
        }
        made
    }

    /// As [`whole`](Self::whole), for a layer that is made of parameters: an error says which layer it is.
    pub(crate) fn layer<T>(mut self, make: impl FnOnce(&mut Scope<'_>) -> Result<T>) -> Result<T> {
        self.whole(make).map_err(|error| self.place(error))
    }

    /// An error with the path of the layer that it is about.
    pub(crate) fn place(&self, error: Error) -> Error {
        if self.prefix.is_empty() { error } else { error.within(self.prefix.clone()) }
    }

    pub(crate) fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Makes a parameter.
    ///
    /// # Errors
    /// When the name is taken, the store's dtype isn't floating point, `init` refuses its number, or memory runs out.
    pub fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Slot> {
        let name = self.full(name);
        if !self.params.dtype.is_float() {
            return Err(Error::new(ErrorKind::DType, "params", format!("{name} would be {}", self.params.dtype))
                .expected("a floating-point dtype"));
        }
        let seed = self.params.seed.named(&name);
        let value = init.tensor(shape, seed, self.params.dtype, self.params.device)?;
        self.params.add(name, value, false)
    }

    /// Gives the parameter in `slot` another name, for weights that two layers share.
    ///
    /// # Errors
    /// When the name is taken, or the slot is of another store.
    pub fn alias(&mut self, name: &str, slot: Slot) -> Result<Slot> {
        check_structure(self.params.structure, slot.structure)?;
        let name = self.full(name);
        self.params.name(&name, slot.index)?;
        Ok(slot)
    }

    /// Makes a buffer: a value that is kept with the parameters but has no gradient.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn buffer(&mut self, name: &str, value: Tensor) -> Result<Slot> {
        let name = self.full(name);
        self.params.add(name, value, true)
    }

    /// Makes a buffer of the parameters' dtype filled with one number.
    ///
    /// # Errors
    /// When the name is taken, or memory runs out.
    pub fn constant_buffer(&mut self, name: &str, shape: &[usize], value: f64) -> Result<Slot> {
        let value = Tensor::full(shape, value, self.params.dtype, self.params.device)?;
        self.buffer(name, value)
    }

    /// The device that parameters are made on.
    pub fn device(&self) -> Device {
        self.params.device
    }

    /// The dtype of the parameters.
    pub fn dtype(&self) -> DType {
        self.params.dtype
    }
}
