//! `tomograd info FILE|DIR`.

use std::path::Path;

use tomograd::{
    Result,
    core::shape_text,
    io::{
        self, Slide, Weights,
        dicom::{Listing, Series, Stack},
        geometry,
    },
};

use crate::{plain, print::print_line};

/// Extensions of weights files; all other files are volumes.
const WEIGHTS: [&str; 6] = ["safetensors", "json", "pth", "pt", "bin", "ckpt"];

pub(crate) fn run(file: &Path, strict: bool) -> Result<()> {
    if file.is_dir() || file.file_name().is_some_and(|name| name.eq_ignore_ascii_case("DICOMDIR")) {
        return folder(file);
    }
    let ending = file.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    if ending.is_some_and(|ending| WEIGHTS.contains(&&ending[..])) {
        return weights(file, strict);
    }
    if let Ok(slide) = Slide::open(file)
        && slide.levels().len() > 1
    {
        list_slide(file, &slide);
        return Ok(());
    }
    let mut info = io::info(file)?;
    info.notes.iter_mut().for_each(|note| *note = plain(note));
    print_line!("file         {}\n{info}", file.display());
    Ok(())
}

/// Lists the levels of a whole-slide image without reading pixels.
fn list_slide(file: &Path, slide: &Slide) {
    print_line!("file      {}", file.display());
    print_line!("format    {}", slide.kind());
    for (number, level) in slide.levels().iter().enumerate() {
        let ([width, height], [across, down], [x, y]) = (level.size(), level.tile(), level.downsample());
        let size = slide.micrometres().map(|[sx, sy]| format!(", {:.4} × {:.4} µm", sx * x, sy * y));
        print_line!(
            "level {number:<4}{width} × {height}, 1:{x:.2}{}, tiles of {across} × {down}, {}",
            size.unwrap_or_default(),
            level.compression()
        );
    }
    if slide.micrometres().is_none() {
        print_line!("note      the file doesn't say the size of a pixel");
    }
    if slide.others() > 0 {
        print_line!("note      {} other pictures, such as thumbnail and label", slide.others());
    }
}

/// Lists the series of a DICOM folder without reading pixels.
fn folder(path: &Path) -> Result<()> {
    let listing = Listing::open(path)?;
    print_line!("folder    {}", path.display());
    for series in listing.series() {
        list_series(series);
    }
    let (skipped, others) = (listing.skipped(), listing.others());
    for (file, error) in skipped {
        print_line!("skipped   {}", plain(&format!("{}: {error}", file.display())));
    }
    print_line!(
        "total     {} series, {} DICOM files skipped, {others} other files",
        listing.series().len(),
        skipped.len()
    );
    Ok(())
}

fn list_series(series: &Series) {
    let number = series.number().map_or(String::new(), |number| format!(" {number}"));
    let units = series.units().map_or(String::new(), |units| format!(", in {}", plain(units)));
    print_line!("");
    print_line!(
        "series{number:<4}{} {} ({} files{units})",
        plain(series.modality()),
        plain(series.description()),
        series.files()
    );
    print_line!("  uid     {}", plain(series.uid()));
    for note in series.notes() {
        print_line!("  note    {}", plain(note));
    }
    for (number, stack) in (1..).zip(series.stacks()) {
        list_stack(number, stack);
    }
}

fn list_stack(number: usize, stack: &Stack) {
    let [x, y, z] = stack.size();
    let [sx, sy, sz] = geometry::spacing(stack.affine());
    let label = if stack.label().is_empty() { String::new() } else { format!(" [{}]", plain(stack.label())) };
    print_line!(
        "  stack {number:<2}{x} × {y} × {z}, {sx:.4} × {sy:.4} × {sz:.4} mm, {}, {}{label}",
        geometry::orientation(stack.affine()),
        stack.transfer_syntax()
    );
    for [centre, width] in stack.windows() {
        print_line!("    window  {centre} ± {}", width / 2.0);
    }
    for note in stack.notes() {
        print_line!("    note    {}", plain(note));
    }
}

/// Lists the tensors of a weights file and its other contents.
fn weights(file: &Path, strict: bool) -> Result<()> {
    let weights = Weights::open(file)?;
    let weights =
        if strict { weights.strict().map_err(|error| error.within(file.display().to_string()))? } else { weights };
    print_line!("file      {}", file.display());
    let tensors = weights.tensors();
    // A longer name moves its own line. (Formatting panics for widths beyond 65535.)
    let width = tensors.iter().map(|tensor| tensor.name().chars().count()).max().unwrap_or(0).min(80);
    for tensor in tensors {
        print_line!("tensor    {:width$}  {:<8}{}", plain(tensor.name()), tensor.stored(), shape_text(tensor.shape()));
    }
    for skipped in weights.skipped() {
        print_line!("skipped   {}: {}", plain(&skipped.name), plain(&skipped.why));
    }
    for (name, class) in weights.objects() {
        let place = if name.is_empty() { "the whole".to_owned() } else { plain(name) };
        print_line!("object    {place}: {}, not resolved", plain(class));
    }
    for global in weights.globals() {
        print_line!("names     {}, not resolved", plain(global));
    }
    for (name, text) in weights.metadata() {
        print_line!("metadata  {}: {}", plain(name), plain(&text.chars().take(200).collect::<String>()));
    }
    let elements = tensors.iter().fold(0usize, |sum, tensor| sum.saturating_add(tensor.count()));
    let bits = tensors.iter().map(|tensor| tensor.count() as f64 * f64::from(tensor.stored().bits()));
    print_line!("total     {} tensors, {elements} elements, {:.0} bytes", tensors.len(), bits.sum::<f64>() / 8.0);
    Ok(())
}
