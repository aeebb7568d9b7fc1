//! Parameters and buffers: an owned, ordered store, addressed by name.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Seed, Tensor};

use crate::init::Init;

/// A place in a store. Layers hold these instead of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    store: u64,
    pub(crate) index: usize,
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

/// All parameters and buffers of a network, in the order of their making.
#[derive(Debug)]
pub struct Params {
    store: u64,
    device: Device,
    dtype: DType,
    seed: Seed,
    pub(crate) entries: Vec<Entry>,
    by_name: BTreeMap<String, usize>,
}

static NEXT_STORE: AtomicU64 = AtomicU64::new(1);

impl Params {
    /// An empty store of f32 parameters on `device`; each is filled by `seed` and its own name.
    pub fn new(device: Device, seed: Seed) -> Self {
        let store = NEXT_STORE.fetch_add(1, Ordering::Relaxed);
        Self { store, device, dtype: DType::F32, seed, entries: Vec::new(), by_name: BTreeMap::new() }
    }

    /// The same, with parameters of `dtype`.
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

    /// The number of elements of all parameters; buffers don't count.
    pub fn count(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.is_buffer).map(|entry| entry.value.count()).sum()
    }

    /// Names and values of parameters and buffers, in their order: the state dict.
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
        let entry = self.by_name.get(name).map(|&index| &mut self.entries[index]).ok_or_else(|| unknown(name))?;
        let old = &entry.value;
        if old.shape() != value.shape() || old.dtype() != value.dtype() || old.device() != value.device() {
            return Err(Error::shape("params", format!("{name} is {value:?}")).expected(format!("{old:?}")));
        }
        entry.value = value.contiguous()?;
        Ok(())
    }

    /// Replaces all values by those of `state`, which must have exactly the same names.
    ///
    /// # Errors
    /// When a name is missing or unexpected, or a value doesn't fit; then nothing is changed.
    pub fn load(&mut self, state: impl IntoIterator<Item = (String, Tensor)>) -> Result<()> {
        let state: BTreeMap<String, Tensor> = state.into_iter().collect();
        let missing: Vec<&str> =
            self.by_name.keys().filter(|&name| !state.contains_key(name)).map(String::as_str).collect();
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
        let before = self.entries.clone();
        for (name, value) in state {
            if let Err(error) = self.set(&name, value) {
                self.entries = before;
                return Err(error.within("load"));
            }
        }
        Ok(())
    }

    /// Freezes the parameters for which `choose` is true, and unfreezes the others.
    pub fn freeze(&mut self, choose: impl Fn(&ParamInfo<'_>) -> bool) {
        for entry in self.entries.iter_mut().filter(|entry| !entry.is_buffer) {
            entry.frozen = choose(&ParamInfo { name: &entry.name, shape: entry.value.shape(), frozen: entry.frozen });
        }
    }

    /// A copy in a store of its own, for averages; it shares memory until one of both changes.
    pub fn replica(&self) -> Self {
        let store = NEXT_STORE.fetch_add(1, Ordering::Relaxed);
        let (entries, by_name) = (self.entries.clone(), self.by_name.clone());
        Self { store, device: self.device, dtype: self.dtype, seed: self.seed, entries, by_name }
    }

    pub(crate) fn info(&self, index: usize) -> ParamInfo<'_> {
        let entry = &self.entries[index];
        ParamInfo { name: &entry.name, shape: entry.value.shape(), frozen: entry.frozen }
    }

    fn add(&mut self, name: String, value: Tensor, is_buffer: bool) -> Result<Slot> {
        if self.by_name.contains_key(&name) {
            return Err(Error::new(ErrorKind::Name, "params", format!("the name {name} is given twice"))
                .expected("a name of its own for each parameter"));
        }
        let index = self.entries.len();
        self.by_name.insert(name.clone(), index);
        self.entries.push(Entry { name, value, is_buffer, frozen: false });
        Ok(Slot { store: self.store, index })
    }
}

pub(crate) fn check_store(store: u64, slot: Slot) -> Result<()> {
    if slot.store == store {
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
    params: &'a mut Params,
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

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Makes a parameter.
    ///
    /// # Errors
    /// When the name is taken, or memory runs out.
    pub fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Slot> {
        let name = self.full(name);
        let seed = self.params.seed.named(&name);
        let value = init.tensor(shape, seed, self.params.dtype, self.params.device)?;
        self.params.add(name, value, false)
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
}
