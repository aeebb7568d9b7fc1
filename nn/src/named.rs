//! Ordered values by name: the inputs and outputs of networks.

use tomograd_core::{Result, unknown_name};

/// Ordered values by name, the main one first: inputs and outputs of a [`Network`](crate::Network), feature maps by stage.
/// Inserting an existing name replaces its value and keeps its position.
///
/// ```
/// use tomograd_nn::Named;
/// let outputs = Named::from([("reconstruction", 1.5), ("mean", 0.0), ("log_variance", -1.0)]);
/// assert_eq!(*outputs.get("mean")?, 0.0);
/// assert_eq!(*outputs.main()?, 1.5);
/// let error = outputs.get("log_varience").unwrap_err().to_string();
/// assert!(error.contains("did you mean log_variance?"), "{error}");
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Named<T>(Vec<(String, T)>);

impl<T> Named<T> {
    /// No values.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(|(name, _)| &name[..])
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (&name[..], value))
    }

    /// The value called `name`, if it exists.
    pub fn find(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value called `name`.
    ///
    /// # Errors
    /// When it doesn't exist; the error lists the names and the nearest one.
    pub fn get(&self, name: &str) -> Result<&T> {
        self.find(name).ok_or_else(|| unknown_name("named", "tensor", name, self.names()))
    }

    /// Removes and returns the value called `name`; the others keep their order.
    ///
    /// # Errors
    /// When it doesn't exist; the error lists the names and the nearest one.
    pub fn take(&mut self, name: &str) -> Result<T> {
        match self.0.iter().position(|(known, _)| known == name) {
            Some(place) => Ok(self.0.remove(place).1),
            None => Err(unknown_name("named", "tensor", name, self.names())),
        }
    }

    /// The first value, which is the main one.
    ///
    /// # Errors
    /// When there are no values.
    pub fn main(&self) -> Result<&T> {
        self.0.first().map(|(_, value)| value).ok_or_else(nothing)
    }

    /// The first value, by move.
    ///
    /// # Errors
    /// When there are no values.
    pub fn into_main(self) -> Result<T> {
        self.0.into_iter().next().map(|(_, value)| value).ok_or_else(nothing)
    }

    /// Sets the value of `name`; returns the previous one.
    pub fn insert(&mut self, name: impl Into<String>, value: T) -> Option<T> {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.0.push((name, value));
                None
            }
        }
    }

    /// Checks that all names are in `known`.
    ///
    /// # Errors
    /// When a name isn't; the error lists `known` and the nearest name.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.names().find(|name| !known.contains(name)) {
            Some(name) => Err(unknown_name("named", "tensor", name, known.iter().copied())),
            None => Ok(()),
        }
    }

    /// Applies `made` to each value and keeps the names.
    ///
    /// # Errors
    /// The first error of `made`, with the name.
    pub fn try_map<U>(self, mut made: impl FnMut(T) -> Result<U>) -> Result<Named<U>> {
        let entries = self.0.into_iter();
        let made = |(name, value)| match made(value) {
            Ok(value) => Ok((name, value)),
            Err(error) => Err(error.within(name)),
        };
        Ok(Named(entries.map(made).collect::<Result<_>>()?))
    }
}

#[cold]
fn nothing() -> tomograd_core::Error {
    tomograd_core::Error::argument("named", "there are no tensors").expected("one at least")
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<N: Into<String>, T, const K: usize> From<[(N, T); K]> for Named<T> {
    fn from(pairs: [(N, T); K]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<N: Into<String>, T> FromIterator<(N, T)> for Named<T> {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(pairs: I) -> Self {
        let mut named = Self::new();
        pairs.into_iter().for_each(|(name, value)| drop(named.insert(name, value)));
        named
    }
}

impl<T> IntoIterator for Named<T> {
    type Item = (String, T);
    type IntoIter = std::vec::IntoIter<(String, T)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_and_replaces_by_name() {
        let mut named = Named::from([("a", 1), ("b", 2), ("a", 3)]);
        assert_eq!(named.iter().collect::<Vec<_>>(), [("a", &3), ("b", &2)]);
        assert_eq!(named.insert("b", 5), Some(2));
        assert_eq!((named.take("a").unwrap(), named.len()), (3, 1));
        assert_eq!(*named.main().unwrap(), 5);
        assert!(named.take("a").is_err() && named.find("a").is_none());
        assert!(named.only(&["b", "c"]).is_ok() && named.only(&["c"]).is_err());
        assert!(Named::<u8>::new().main().is_err() && Named::<u8>::new().into_main().is_err());
    }
}
