//! From a kernel's source to a loaded library.

use std::{
    env,
    ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong, c_void},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::launch::RawReport;

/// What the compiler reads beside a kernel.
const HEADERS: [(&str, &str); 6] = [
    ("interface.h", include_str!("../cpp/interface.h")),
    ("emulator.hpp", include_str!("../cpp/emulator.hpp")),
    ("tomograd.cuh", include_str!("../../../core/src/cuda/tomograd.cuh")),
    ("indices.cuh", include_str!("../../../core/src/cuda/indices.cuh")),
    ("sums.cuh", include_str!("../../../core/src/cuda/sums.cuh")),
    ("tiles.cuh", include_str!("../../../core/src/cuda/tiles.cuh")),
];

/// The runtime's sources.
const RUNTIME: [(&str, &str); 6] = [
    ("runtime.hpp", include_str!("../cpp/runtime.hpp")),
    ("costs.cpp", include_str!("../cpp/costs.cpp")),
    ("fibers.cpp", include_str!("../cpp/fibers.cpp")),
    ("launch.cpp", include_str!("../cpp/launch.cpp")),
    ("memory.cpp", include_str!("../cpp/memory.cpp")),
    ("warp.cpp", include_str!("../cpp/warp.cpp")),
];

/// A call before each access, and no optimisation that would change which accesses there are or hide one from the calls.
const KERNEL_FLAGS: [&str; 18] = [
    "-std=c++17",
    "-O2",
    "-g1",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-fno-builtin-memcpy",
    "-fno-optimize-sibling-calls",
    "-fno-threadsafe-statics",
    "-fno-tree-vectorize",
    "-fno-tree-slp-vectorize",
    "-w",
    "-fsanitize=thread",
    "-DTOMOGRAD_EMULATOR",
    "-c",
];
/// The same for one compiler only.
const GCC_FLAGS: [&str; 4] = [
    "--param=tsan-instrument-func-entry-exit=0",
    "-fno-gnu-unique",
    "-fno-tree-loop-distribute-patterns",
    "-fno-store-merging",
];
const CLANG_FLAGS: [&str; 5] = [
    "-mllvm",
    "-tsan-instrument-func-entry-exit=0",
    "-mllvm",
    "-tsan-instrument-read-before-write",
    "-fno-merge-all-constants",
];

/// The runtime, loaded.
#[derive(Debug)]
pub struct Emulator {
    compiler: String,
    clang: bool,
    directory: PathBuf,
    runtime: PathBuf,
    pub(crate) functions: Functions,
}

// The types of the runtime's functions (cpp/interface.h).
type OfRange = unsafe extern "C" fn(*const c_void, c_ulong);
type OfPlace = unsafe extern "C" fn(*const c_void);
type OfCopy = unsafe extern "C" fn(*mut c_void, *const c_void, c_ulong);
type CountOfRange = unsafe extern "C" fn(*const c_void, c_ulong) -> c_ulong;

/// The runtime's functions of global memory.
#[derive(Debug)]
pub(crate) struct Functions {
    pub(crate) allocated: OfRange,
    pub(crate) written: OfRange,
    pub(crate) freed: OfPlace,
    pub(crate) copied: OfCopy,
    pub(crate) unwritten: CountOfRange,
}

/// A kernel as a library's table has it.
#[repr(C)]
struct RawKernel {
    name: *const c_char,
    invoke: *const c_void,
    most_threads: c_uint,
    parameter_count: c_uint,
    parameter_sizes: *const c_uint,
}

/// The launch function of a library.
pub(crate) type Launch = unsafe extern "C" fn(
    *const c_char,
    *const c_uint,
    *const c_uint,
    c_ulong,
    *mut *mut c_void,
    *mut RawReport,
) -> c_int;

/// The kernels of one source file.
#[derive(Debug)]
pub struct Library {
    pub(crate) path: PathBuf,
    pub(crate) launch: Launch,
    pub(crate) kernels: Vec<Kernel>,
}

/// A kernel's name and the sizes of its parameters in bytes.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) parameters: Vec<usize>,
}

impl Emulator {
    /// The emulator of this process, compiled at the first call by `$CXX`, `c++` or `clang++`.
    ///
    /// # Errors
    /// When there is no C++ compiler, or the runtime can't be compiled or loaded.
    pub fn open() -> Result<&'static Emulator, String> {
        static EMULATOR: OnceLock<Result<Emulator, String>> = OnceLock::new();
        EMULATOR.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Self, String> {
        let named = env::var("CXX").ok().filter(|name| !name.is_empty());
        let candidates = named.map_or_else(|| vec!["c++".to_owned(), "clang++".to_owned()], |name| vec![name]);
        let version = |name: &String| {
            let output = Command::new(name).arg("--version").output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let Some((compiler, version)) = candidates.iter().find_map(|name| Some((name.clone(), version(name)?))) else {
            return Err(format!(
                "no C++ compiler: {} can't be run; install g++ or clang++, or set CXX",
                candidates.join(", ")
            ));
        };
        // Beside the running program, which is inside the build's own folder.
        let program = env::current_exe().map_err(|error| format!("where the program lies: {error}"))?;
        let directory = program.parent().unwrap_or(Path::new(".")).join("emulator");
        let key = hash(&[&version, &joined(&HEADERS), &joined(&RUNTIME)]);
        let sources = directory.join(format!("sources-{key:016x}"));
        for (name, text) in HEADERS.iter().chain(&RUNTIME) {
            write(&sources.join(name), text)?;
        }
        let clang = version.contains("clang");
        let runtime = directory.join(format!("runtime-{key:016x}.so"));
        if !runtime.exists() {
            let output = temporary(&runtime);
            let mut command = Command::new(&compiler);
            command.args(["-std=c++17", "-O2", "-g1", "-fPIC", "-shared", "-w", "-o"]).arg(&output);
            command.args(RUNTIME.iter().filter(|(name, _)| name.ends_with(".cpp")).map(|(name, _)| sources.join(name)));
            run(command.arg("-ldl"), "the emulator's runtime")?;
            fs::rename(&output, &runtime).map_err(|error| format!("{}: {error}", runtime.display()))?;
        }
        let library = load(&runtime)?;
        // SAFETY: the runtime defines these with these types (cpp/interface.h), and it stays loaded.
        let functions = unsafe {
            Functions {
                allocated: std::mem::transmute::<*mut c_void, OfRange>(symbol(
                    library,
                    c"tomograd_emulator_allocated",
                )?),
                written: std::mem::transmute::<*mut c_void, OfRange>(symbol(library, c"tomograd_emulator_written")?),
                freed: std::mem::transmute::<*mut c_void, OfPlace>(symbol(library, c"tomograd_emulator_freed")?),
                copied: std::mem::transmute::<*mut c_void, OfCopy>(symbol(library, c"tomograd_emulator_copied")?),
                unwritten: std::mem::transmute::<*mut c_void, CountOfRange>(symbol(
                    library,
                    c"tomograd_emulator_unwritten",
                )?),
            }
        };
        Ok(Self { compiler, clang, directory: sources, runtime, functions })
    }

    /// Compiles and loads the kernels of a source, whose file messages call `name`. `options` are given to the compiler, as
    /// `-DTILE=16`.
    ///
    /// # Errors
    /// The compiler's messages; when there is no `extern "C" __global__` function.
    pub fn compile(&self, name: &str, source: &str, options: &[&str]) -> Result<Library, String> {
        let key = hash(&[name, source, &options.join("\n"), &self.runtime.to_string_lossy()]);
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path = self.directory.join(format!("{plain}-{key:016x}.so"));
        if !path.exists() {
            self.build(name, source, options, &path)?;
        }
        let handle = load(&path)?;
        // SAFETY: the footer that `build` puts behind a source defines both with these types (TOMOGRAD_KERNELS).
        let (launch, table) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Launch>(symbol(handle, c"tomograd_emulator_launch")?),
                symbol(handle, c"tomograd_kernels")?.cast::<*const RawKernel>(),
            )
        };
        Ok(Library { path, launch, kernels: kernels(table) })
    }

    fn build(&self, name: &str, source: &str, options: &[&str], path: &Path) -> Result<(), String> {
        let mut text = format!("{source}\n");
        // A folder of its own, so that the file can have the name that messages should have.
        let folder = temporary(&path.with_extension("build"));
        let file = Path::new(name).file_name().ok_or_else(|| format!("{name:?}: expected the name of a file"))?;
        let unit = folder.join(file);
        write(&unit, &text)?;
        // As NVRTC sees it, where `__global__` is a word and macros are written out.
        let mut command = Command::new(&self.compiler);
        command.args(["-E", "-P", "-std=c++17", "-x", "c++", "-I"]).arg(&self.directory).args(options).arg(&unit);
        let expanded = run(&mut command, name)?;
        let kernels = scan(&expanded);
        if kernels.is_empty() {
            return Err(format!("{name}: no kernel; expected functions `extern \"C\" __global__ void NAME(...)`"));
        }
        for (kernel, threads) in &kernels {
            text += &format!("TOMOGRAD_KERNEL({kernel}, ({threads}))\n");
        }
        let entries: Vec<String> = kernels.iter().map(|(kernel, _)| format!("&tomograd_kernel_{kernel}")).collect();
        text += &format!("TOMOGRAD_KERNELS({})\n", entries.join(", "));
        write(&unit, &text)?;
        let object = folder.join("kernels.o");
        let mut command = Command::new(&self.compiler);
        command.args(KERNEL_FLAGS).arg(format!("-ffile-prefix-map={}/=", folder.display()));
        if self.clang {
            command.args(CLANG_FLAGS);
        } else {
            command.args(GCC_FLAGS);
        }
        command.arg("-I").arg(&self.directory).args(options).args(["-x", "c++"]).arg(&unit).arg("-o").arg(&object);
        run(&mut command, name)?;
        let output = folder.join("kernels.so");
        // Linked without the sanitizer's flag: its callbacks are the runtime's.
        let mut command = Command::new(&self.compiler);
        command.args(["-shared", "-o"]).arg(&output).arg(&object).arg(&self.runtime);
        let mut search = std::ffi::OsString::from("-Wl,-rpath,");
        search.push(self.runtime.parent().unwrap_or(Path::new(".")));
        run(command.arg(search), name)?;
        fs::rename(&output, path).map_err(|error| format!("{}: {error}", path.display()))?;
        let _ = fs::remove_dir_all(&folder);
        Ok(())
    }
}

fn kernels(table: *const *const RawKernel) -> Vec<Kernel> {
    (0..)
        // SAFETY: the table ends with a null pointer, at which `map_while` stops.
        .map_while(|index| unsafe { (*table.add(index)).as_ref() })
        .map(|kernel| {
            // SAFETY: a name is a string literal; there is a size for each parameter, and one behind them.
            let (name, sizes) = unsafe {
                let sizes = std::slice::from_raw_parts(kernel.parameter_sizes, kernel.parameter_count as usize);
                (CStr::from_ptr(kernel.name).to_string_lossy().into_owned(), sizes)
            };
            Kernel { name, parameters: sizes.iter().map(|&size| size as usize).collect() }
        })
        .collect()
}

/// Names of the kernels of a preprocessed source, and their largest number of threads (0 where there is no bound).
fn scan(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in source.split("__global__").skip(1) {
        let mut part = part.trim_start();
        let mut threads = "0".to_owned();
        let mut name = None;
        loop {
            if let Some(rest) = part.strip_prefix("__launch_bounds__") {
                let Some((inside, behind)) = parentheses(rest.trim_start()) else { break };
                threads = first_argument(inside).trim().to_owned();
                part = behind.trim_start();
            } else {
                let end = part.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(part.len());
                let (word, rest) = part.split_at(end);
                if word.is_empty() {
                    break;
                }
                part = rest.trim_start();
                if part.starts_with('(') && !word.starts_with("__") {
                    name = Some(word.to_owned());
                    break;
                }
            }
        }
        found.extend(name.map(|name| (name, threads)));
    }
    found
}

/// What is inside the parentheses that a text begins with, and what is behind them.
fn parentheses(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    for (place, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.starts_with('(').then(|| (&text[1..place], &text[place + 1..]));
        }
    }
    None
}

fn first_argument(text: &str) -> &str {
    let mut depth = 0;
    for (place, c) in text.char_indices() {
        match c {
            '(' | '<' => depth += 1,
            ')' | '>' => depth -= 1,
            ',' if depth == 0 => return &text[..place],
            _ => {}
        }
    }
    text
}

fn joined(files: &[(&str, &str)]) -> String {
    files.iter().map(|(name, text)| format!("{name}\n{text}")).collect()
}

fn hash(parts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (KERNEL_FLAGS, GCC_FLAGS, CLANG_FLAGS, parts).hash(&mut hasher);
    hasher.finish()
}

/// A name that no other thread or process writes to.
fn temporary(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = format!("{}-{}-", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    name += &path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(name)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let place = temporary(path);
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&place, text))
        .and_then(|()| fs::rename(&place, path))
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn run(command: &mut Command, what: &str) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{what}: the C++ compiler can't be run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{what}: the C++ compiler failed:\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn load(path: &Path) -> Result<*mut c_void, String> {
    let name =
        CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| format!("{}: a zero byte", path.display()))?;
    // Local, so that a library's table of kernels is its own.
    // SAFETY: a library that this module compiled; loading it runs nothing but what compilers put into every library.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: after a failed dlopen the message is a string.
        let message = unsafe { CStr::from_ptr(libc::dlerror()) };
        return Err(format!("{}: {}", path.display(), message.to_string_lossy()));
    }
    Ok(handle)
}

fn symbol(library: *mut c_void, name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: the handle of a loaded library.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    if address.is_null() { Err(format!("no {} in a compiled library", name.to_string_lossy())) } else { Ok(address) }
}

#[cfg(test)]
mod tests {
    use super::scan;

    #[test]
    fn kernels_are_found_with_their_bounds() {
        let source = r#"
            template <typename T> __device__ void body(T *x) {}
            extern "C" __global__ void a(float *x) { body(x); }
            extern "C" __global__ __launch_bounds__(f(2, 3) * 4, 2) void b(int n) {}
            extern "C" __global__ void __launch_bounds__(THREADS) c() {}
        "#;
        let expected = [("a", "0"), ("b", "f(2, 3) * 4"), ("c", "THREADS")];
        assert_eq!(scan(source), expected.map(|(name, threads)| (name.to_owned(), threads.to_owned())));
    }
}
