//! The one error type of the framework: what was wrong, where, and what was expected.

use std::fmt;

/// The result of every call that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The category of an error, for callers that handle some categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Shapes don't fit the operation or each other, or a size overflows.
    Shape,
    /// A dtype that the operation doesn't take, or two that differ.
    DType,
    /// A device that isn't there, or tensors of two devices.
    Device,
    /// A value outside its range: an axis, a stride, a probability, a label.
    Argument,
    /// The memory pool's limit is reached, or the system has no more memory.
    OutOfMemory,
    /// Outside data (a file, a header) that isn't what it claims to be.
    Format,
    /// The operating system reported a failure.
    Io,
    /// A graph used twice, or variables of two passes mixed.
    Graph,
    /// A name that is unknown, or given twice.
    Name,
    /// A panic inside a parallel chunk, caught and reported.
    Panic,
}

/// An error that names the operation, what was wrong, the shapes it saw and what it expected.
///
/// It is one pointer wide, so that `Result<T>` stays small.
///
/// ```
/// use tomograd_core::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::Shape, "matmul", "inner sizes 3 and 4 differ")
///     .expected("(M, K) and (K, N)")
///     .shapes([&[2, 3][..], &[4, 5][..]]);
/// assert_eq!(
///     error.to_string(),
///     "matmul: inner sizes 3 and 4 differ; expected (M, K) and (K, N); got shapes (2, 3), (4, 5)"
/// );
/// ```
pub struct Error(Box<Detail>);

struct Detail {
    kind: ErrorKind,
    operation: String,
    what: String,
    expected: Option<String>,
    shapes: Vec<Vec<usize>>,
    context: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` in `operation`; `what` says what was wrong.
    #[cold]
    pub fn new(kind: ErrorKind, operation: impl Into<String>, what: impl Into<String>) -> Self {
        Self(Box::new(Detail {
            kind,
            operation: operation.into(),
            what: what.into(),
            expected: None,
            shapes: Vec::new(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// A shape error; short for [`Error::new`] with [`ErrorKind::Shape`].
    #[cold]
    pub fn shape(operation: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Shape, operation, what)
    }

    /// A bad argument; short for [`Error::new`] with [`ErrorKind::Argument`].
    #[cold]
    pub fn argument(operation: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Argument, operation, what)
    }

    /// Outside data that isn't what it claims; short for [`Error::new`] with [`ErrorKind::Format`].
    #[cold]
    pub fn format(operation: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Format, operation, what)
    }

    /// A failure that the operating system reported while doing `operation` on `what` (mostly a path).
    #[cold]
    pub fn io(operation: impl Into<String>, what: impl fmt::Display, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, operation, format!("{what}: {source}")).source(source)
    }

    /// Adds what was expected.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.0.expected = Some(expected.into());
        self
    }

    /// Adds the shapes that the operation saw.
    #[must_use]
    pub fn shapes<'a>(mut self, shapes: impl IntoIterator<Item = &'a [usize]>) -> Self {
        self.0.shapes = shapes.into_iter().map(<[usize]>::to_vec).collect();
        self
    }

    /// Adds where the error occurred: the layer, the file, the case. The outermost place is printed first.
    #[must_use]
    pub fn within(mut self, place: impl Into<String>) -> Self {
        self.0.context.push(place.into());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The category of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }
}

/// Writes a shape as NumPy does: `(2, 1, 64, 64)`.
pub fn shape_text(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    if sizes.len() == 1 { format!("({},)", sizes[0]) } else { format!("({})", sizes.join(", ")) }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = &*self.0;
        for place in detail.context.iter().rev() {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: {}", detail.operation, detail.what)?;
        if let Some(expected) = &detail.expected {
            write!(f, "; expected {expected}")?;
        }
        if !detail.shapes.is_empty() {
            let shapes: Vec<String> = detail.shapes.iter().map(|shape| shape_text(shape)).collect();
            write!(f, "; got shapes {}", shapes.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn names_places_from_the_outside_in() {
        let error = Error::argument("narrow", "axis 4 of a tensor of rank 3").within("conv1").within("encoder");
        assert_eq!(error.to_string(), "encoder: conv1: narrow: axis 4 of a tensor of rank 3");
        assert_eq!(error.kind(), ErrorKind::Argument);
    }
}
