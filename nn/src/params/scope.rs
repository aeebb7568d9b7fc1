//! The names of parameters as a tree.

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor};

use super::{Params, Slot, check_structure};
use crate::{init::Init, lock::lock};

/// A node of the tree of names, in which a layer creates its parameters.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{Params, init::Init};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut root = params.root();
/// let slot = root.at("encoder").at(0).parameter("weight", &[4, 3], Init::FanIn(3))?; // a layer keeps the slot
/// assert_eq!(params.get("encoder.0.weight")?.shape(), [4, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Scope<'a> {
    pub(crate) params: &'a mut Params,
    pub(super) prefix: String,
}

impl Scope<'_> {
    /// The child scope called `name`.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = self.full(&name.to_string());
        Scope { params: self.params, prefix }
    }

    /// The full name of the scope: the path of the layer.
    pub fn path(&self) -> &str {
        &self.prefix
    }

    /// Runs `make` in this scope; if it fails, everything that it created is removed.
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
            for link in &self.params.links {
                let structure = self.params.structure;
                lock(&link.follows).retain(|conv| conv.weight.structure() != structure || conv.weight.index < entries);
            }
            for name in self.params.named.drain(names..) {
                self.params.by_name.remove(&name);
            }
        }
        made
    }

    /// As [`whole`](Self::whole), for a layer: errors get the layer's path.
    pub(crate) fn layer<T>(mut self, make: impl FnOnce(&mut Scope<'_>) -> Result<T>) -> Result<T> {
        self.whole(make).map_err(|error| self.place(error))
    }

    /// Adds the path of the scope to an error.
    pub(crate) fn place(&self, error: Error) -> Error {
        if self.prefix.is_empty() { error } else { error.within(self.prefix.clone()) }
    }

    pub(crate) fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Creates a parameter.
    ///
    /// # Errors
    /// When the name is taken, the store's dtype isn't floating point, `init` has an invalid number, or memory runs out.
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

    /// Adds another name for the parameter in `slot`, for weights that two layers share.
    ///
    /// # Errors
    /// When the name is taken, or the slot is of another store.
    pub fn alias(&mut self, name: &str, slot: Slot) -> Result<Slot> {
        check_structure(self.params.structure, slot.structure)?;
        let name = self.full(name);
        self.params.name(&name, slot.index)?;
        Ok(slot)
    }

    /// Adds further names for everything that the child scope `of` has: below `name`, in the same order. A PyTorch
    /// network whose modules are registered in two places has its parameters under both names in the state dict.
    ///
    /// ```
    /// use tomograd_core::{Device, Seed};
    /// use tomograd_nn::{Linear, Params};
    /// let mut params = Params::new(Device::Cpu, Seed::new(1));
    /// let mut scope = params.root();
    /// Linear::new(scope.at("head"), 3, 2)?;
    /// scope.alias_all("all.0", "head")?;
    /// let names: Vec<(&str, &str)> = params.names().collect();
    /// assert_eq!(names[2..], [("all.0.weight", "head.weight"), ("all.0.bias", "head.bias")]);
    /// assert_eq!(params.state().count(), 2);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `of` has no name, or a name is taken; then no name is added.
    pub fn alias_all(&mut self, name: &str, of: &str) -> Result<()> {
        let (to, from) = (self.full(name), self.full(of) + ".");
        let renamed =
            |known: &String| Some((format!("{to}.{}", known.strip_prefix(&from)?), self.params.by_name[known]));
        let names: Vec<(String, usize)> = self.params.named.iter().filter_map(renamed).collect();
        if names.is_empty() {
            return Err(Error::new(ErrorKind::Name, "params", format!("no name begins with {from}"))
                .expected("a scope with parameters"));
        }
        self.whole(|scope| names.iter().try_for_each(|(name, index)| scope.params.name(name, *index)))
    }

    /// Creates a buffer: a value in the state dict that has no gradient.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn buffer(&mut self, name: &str, value: Tensor) -> Result<Slot> {
        let name = self.full(name);
        self.params.add(name, value, true)
    }

    /// Creates a buffer of the parameters' dtype, filled with `value`.
    ///
    /// # Errors
    /// When the name is taken, or memory runs out.
    pub fn constant_buffer(&mut self, name: &str, shape: &[usize], value: f64) -> Result<Slot> {
        let value = Tensor::full(shape, value, self.params.dtype, self.params.device)?;
        self.buffer(name, value)
    }

    /// Freezes the parameters of this scope for good, for a part that the state dict has but the network, as it is configured,
    /// doesn't use: a parameter without a gradient is an error in training if it isn't frozen. [`Params::freeze`] doesn't
    /// unfreeze them.
    pub fn freeze(&mut self) {
        let prefix = self.full("");
        for entry in self.params.entries.iter_mut().filter(|entry| entry.name.starts_with(&prefix)) {
            entry.unused = !entry.is_buffer;
            entry.frozen = entry.unused;
        }
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.params.device
    }

    /// The dtype of the parameters.
    pub fn dtype(&self) -> DType {
        self.params.dtype
    }
}
