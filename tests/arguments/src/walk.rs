//! The walk of a case: first with sensible arguments, then with each number replaced by hostile values.

use std::{
    any::Any,
    fmt::Debug,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    time::{Duration, Instant},
};

use tomograd::core::{DType, Device, Error, ErrorKind, Tensor};

/// A public function and a call of it.
pub struct Case {
    /// Its entry, in the notation of [`crate::scan`]. A name may occur several times, with other arguments.
    pub name: &'static str,
    pub run: fn(&Walk),
}

/// `"entry": (argument: type = sensible value, ...) => call;` for each case. The call returns a [`Verdict`]: usually whether
/// the result is right for these arguments, or an error.
macro_rules! cases {
    ($($name:literal: ($($argument:ident: $type:ty = $sensible:expr),+ $(,)?) => $call:expr;)*) => {
        pub const CASES: &[crate::walk::Case] = &[$(crate::walk::Case {
            name: $name,
            run: |walk| walk.every(($($sensible,)+), |($($argument,)+): ($($type,)+)| $call),
        }),*];
    };
}
pub(crate) use cases;

/// The outcome of a call.
pub enum Outcome {
    Right,
    Refused(String),
    Wrong(String),
}

/// A result that can be checked.
pub trait Verdict {
    fn outcome(self) -> Outcome;
}

impl Verdict for bool {
    fn outcome(self) -> Outcome {
        if self { Outcome::Right } else { Outcome::Wrong("is taken, and the result is wrong".to_owned()) }
    }
}

/// Whatever is done without an error is right.
impl Verdict for () {
    fn outcome(self) -> Outcome {
        Outcome::Right
    }
}

impl Verdict for f64 {
    fn outcome(self) -> Outcome {
        if self.is_finite() { Outcome::Right } else { Outcome::Wrong(format!("is taken, and gives {self}")) }
    }
}

/// Right if all elements are finite.
impl Verdict for Tensor {
    fn outcome(self) -> Outcome {
        match self.to_vec_f64() {
            Ok(values) => values.into_iter().find(|x| !x.is_finite()).map_or(Outcome::Right, f64::outcome),
            Err(error) => Outcome::Wrong(format!("gives an unreadable tensor: {error}")),
        }
    }
}

impl<T: Verdict> Verdict for Vec<T> {
    fn outcome(self) -> Outcome {
        self.into_iter().map(T::outcome).find(|outcome| !matches!(outcome, Outcome::Right)).unwrap_or(Outcome::Right)
    }
}

impl<T: Verdict> Verdict for Result<T, Error> {
    fn outcome(self) -> Outcome {
        match self {
            Ok(result) => result.outcome(),
            Err(error) if error.kind() == ErrorKind::Panic => Outcome::Wrong(format!("panics in a chunk: {error}")),
            Err(error) => Outcome::Refused(error.to_string()),
        }
    }
}

/// An argument with its hostile values.
pub trait Argument: Clone + Debug {
    fn hostile(&self) -> Vec<Self>;
}

macro_rules! arguments {
    ($($type:ty: $($value:expr),*;)*) => {$(
        impl Argument for $type {
            fn hostile(&self) -> Vec<Self> {
                vec![$($value),*]
            }
        }
    )*};
}

arguments! {
    usize: 0, 1 << 40, 1 << 63, usize::MAX;
    u64: 0, 1 << 40, 1 << 63, u64::MAX;
    u32: 0, u32::MAX;
    i64: 0, -1, 1 << 40, i64::MIN, i64::MAX;
    i32: 0, -1, i32::MIN, i32::MAX;
    isize: 0, -1, 1 << 40, isize::MIN, isize::MAX;
    u8: 0, u8::MAX;
    f64: 0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1e300, 1e-300;
    f32: 0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, f32::MIN_POSITIVE;
    bool: ;
    DType: ;
    Device: Device::Cuda(0), Device::Cuda(usize::MAX);
}

impl<T: Argument> Argument for Option<T> {
    fn hostile(&self) -> Vec<Self> {
        let some = self.iter().flat_map(Argument::hostile).map(Some);
        some.chain([None]).collect()
    }
}

impl<T: Argument, const N: usize> Argument for [T; N] {
    fn hostile(&self) -> Vec<Self> {
        let each =
            self.iter().enumerate().flat_map(|(place, value)| value.hostile().into_iter().map(move |v| (place, v)));
        each.map(|(place, value)| {
            let mut all = self.clone();
            all[place] = value;
            all
        })
        .collect()
    }
}

/// Each element in turn, all elements at once, an empty list, one element less, one more, and far more.
impl<T: Argument> Argument for Vec<T> {
    fn hostile(&self) -> Vec<Self> {
        let each =
            self.iter().enumerate().flat_map(|(place, value)| value.hostile().into_iter().map(move |v| (place, v)));
        let mut all: Vec<Self> = each
            .map(|(place, value)| {
                let mut all = self.clone();
                all[place] = value;
                all
            })
            .collect();
        if let Some(first) = self.first() {
            all.extend(first.hostile().into_iter().map(|value| vec![value; self.len()]));
            all.push(Vec::new());
            all.push(self[1..].to_vec());
            all.push([&self[..], std::slice::from_ref(first)].concat());
            all.push(vec![first.clone(); 70]);
        }
        all
    }
}

macro_rules! tuples {
    ($($($name:ident $place:tt),*;)*) => {$(
        impl<$($name: Argument),*> Argument for ($($name,)*) {
            fn hostile(&self) -> Vec<Self> {
                let mut all = Vec::new();
                $(for value in self.$place.hostile() {
                    let mut one = self.clone();
                    one.$place = value;
                    all.push(one);
                })*
                all
            }
        }
    )*};
}

tuples! {
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
}

/// The time limit of a call.
const PATIENCE: Duration = Duration::from_secs(10);

/// The start of the current call, for the watchdog.
static CURRENT: Mutex<Option<Instant>> = Mutex::new(None);

/// The walk of one case in the child process; findings are written to the standard output, which the parent reads.
pub struct Walk {
    pub name: &'static str,
    pub number: usize,
}

impl Walk {
    /// Calls `call` with the sensible arguments, which must give a right result, and then with each set of hostile ones.
    pub fn every<A: Argument, V: Verdict>(&self, sensible: A, call: impl Fn(A) -> V) {
        match self.once(&sensible, &call) {
            Outcome::Right => {}
            Outcome::Refused(error) => self.complain(&sensible, &format!("is sensible, but refused: {error}")),
            Outcome::Wrong(what) => self.complain(&sensible, &format!("is sensible, but {what}")),
        }
        for arguments in sensible.hostile() {
            match self.once(&arguments, &call) {
                Outcome::Right => {}
                Outcome::Refused(error) if error.trim().is_empty() => {
                    self.complain(&arguments, "is refused without a word");
                }
                Outcome::Refused(_) => {}
                Outcome::Wrong(what) => self.complain(&arguments, &what),
            }
        }
    }

    fn once<A: Argument, V: Verdict>(&self, arguments: &A, call: &impl Fn(A) -> V) -> Outcome {
        say(&format!("@at\t{}\t{}{arguments:?}", self.number, self.name));
        *CURRENT.lock().unwrap() = Some(Instant::now());
        let outcome = catch_unwind(AssertUnwindSafe(|| call(arguments.clone()).outcome()));
        *CURRENT.lock().unwrap() = None;
        outcome.unwrap_or_else(|panic| Outcome::Wrong(format!("panics: {}", message(&*panic))))
    }

    fn complain(&self, arguments: &impl Debug, what: &str) {
        say(&format!("@wrong\t{}{arguments:?} {what}", self.name));
    }
}

/// Writes a line to the parent; line breaks in panics and errors become spaces.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", line.replace('\n', " "));
    let _ = out.flush();
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Aborts the process when a call takes too long, since a thread can't be stopped.
pub fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(200));
            if CURRENT.lock().unwrap().is_some_and(|start| start.elapsed() > PATIENCE) {
                say("@late");
                std::process::abort();
            }
        }
    });
}

/// The result of a constructor or setter, fallible or not, so that a case is independent of that.
pub trait Made<T> {
    fn made(self) -> Result<T, Error>;
}

impl<T> Made<T> for T {
    fn made(self) -> Result<T, Error> {
        Ok(self)
    }
}

impl<T> Made<T> for Result<T, Error> {
    fn made(self) -> Result<T, Error> {
        self
    }
}

/// See [`Made`].
pub fn made<T>(made: impl Made<T>) -> Result<T, Error> {
    made.made()
}
