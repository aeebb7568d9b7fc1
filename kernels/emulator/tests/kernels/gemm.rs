//! Matrix products.

use std::collections::BTreeMap;

use tomograd_emulator::{Emulator, Library};

use crate::{
    Outcome,
    support::{Buffer, Element, Figures, Random, measure, number},
};

/// `Gemm` of gemm.cu.
#[repr(C)]
struct Shape {
    m: i32,
    n: i32,
    k: i32,
    lda: i32,
    ldb: i32,
    ldc: i32,
    batch_a: i64,
    batch_b: i64,
    batch_c: i64,
    aligned_a: i32,
    aligned_b: i32,
    aligned_c: i32,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    /// Elements between the rows of each operand beyond its own.
    gap: usize,
    bias: bool,
}

pub fn run(emulator: &'static Emulator, library: &Library, cases: usize) -> Outcome {
    let mut outcome = BTreeMap::new();
    all::<f32>(emulator, library, "f32", cases, &mut outcome)?;
    all::<f32>(emulator, library, "tf32", cases, &mut outcome)?;
    all::<half::f16>(emulator, library, "f16", cases, &mut outcome)?;
    all::<half::bf16>(emulator, library, "bf16", cases, &mut outcome)?;
    Ok(outcome)
}

fn all<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    name: &str,
    cases: usize,
    outcome: &mut BTreeMap<String, Figures>,
) -> Result<(), String> {
    for transposed in [[false, false], [false, true], [true, false], [true, true]] {
        let letters = transposed.map(|transposed| if transposed { 't' } else { 'n' });
        let kernel = format!("gemm_{name}_{}{}", letters[0], letters[1]);
        let mut random = Random(7);
        let mut figures = Figures::default();
        // Aligned first: its costs are the figures. Then more than the stages along k, one element, nothing to add.
        let aligned = Case { batch: 1, m: 128, n: 128, k: 128, gap: 0, bias: false };
        let mut list = vec![
            aligned,
            Case { m: 130, n: 100, k: 83, bias: true, ..aligned },
            Case { batch: 2, m: 1, n: 1, k: 1, gap: 3, bias: true },
            Case { m: 3, n: 5, k: 0, ..aligned },
        ];
        list.extend((0..cases).map(|_| {
            let mut size = |most: usize| {
                if random.next().is_multiple_of(2) { random.within(1, most) } else { random.within(1, most / 8) * 8 }
            };
            let (m, n, k) = (size(150), size(150), size(140));
            Case {
                batch: random.within(1, 2),
                m,
                n,
                k,
                gap: random.one_of(&[0, 0, 8, 1]),
                bias: random.next().is_multiple_of(2),
            }
        }));
        for (index, case) in list.into_iter().enumerate() {
            one::<T>(emulator, library, &kernel, transposed, case, index == 0, &mut figures)?;
        }
        outcome.insert(kernel, figures);
    }
    Ok(())
}

fn one<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    kernel: &str,
    transposed: [bool; 2],
    case: Case,
    costs: bool,
    figures: &mut Figures,
) -> Result<(), String> {
    let Case { batch, m, n, k, gap, bias } = case;
    let mut random = Random((m * 1000 + n * 10 + k) as u64);
    let stored = |rows: usize, columns: usize, transposed: bool| {
        if transposed { (columns, rows + gap) } else { (rows, columns + gap) }
    };
    let ((rows_a, lda), (rows_b, ldb), ldc) = (stored(m, k, transposed[0]), stored(k, n, transposed[1]), n + gap);
    let a: Vec<T> = random.elements(batch * rows_a * lda);
    let b: Vec<T> = random.elements(batch * rows_b * ldb);
    let added: Vec<T> = random.elements(n);
    let aligned = |row: usize, product: usize| {
        i32::from((row * size_of::<T>()).is_multiple_of(16) && (product * size_of::<T>()).is_multiple_of(16))
    };
    let shape = Shape {
        m: m as i32,
        n: n as i32,
        k: k as i32,
        lda: lda as i32,
        ldb: ldb as i32,
        ldc: ldc as i32,
        batch_a: (rows_a * lda) as i64,
        batch_b: (rows_b * ldb) as i64,
        batch_c: (m * ldc) as i64,
        aligned_a: aligned(lda, rows_a * lda),
        aligned_b: aligned(ldb, rows_b * ldb),
        aligned_c: aligned(ldc, m * ldc),
    };
    let (da, db, dbias) = (Buffer::of(emulator, &a), Buffer::of(emulator, &b), Buffer::of(emulator, &added));
    // The gaps between rows keep what was there.
    let c = Buffer::of(emulator, &vec![T::of(7.0); batch * m * ldc]);
    let none = std::ptr::null::<T>();
    let arguments = [
        da.argument(),
        db.argument(),
        if bias { dbias.argument() } else { number(&none) },
        c.argument(),
        number(&shape),
    ];
    let in_full = kernel.contains("_f32_");
    let shared = if in_full { 50688 } else { 49152 };
    let grid = [n.div_ceil(128), m.div_ceil(128), batch];
    let report = measure(library, kernel, grid, [256, 1, 1], shared, &arguments)
        .map_err(|fault| format!("{case:?}: {fault}"))?;
    if costs {
        figures.costs(&report, grid.iter().product());
    }
    // f32: an error of one rounding for each of k + 1 additions. Tensor cores: products are exact, each sum of 32 bytes of terms is cut to
    // 23 bits where a rounding would leave half of that, and the result is rounded. TF32 has 11 significant bits, to which both operands
    // are rounded: (1 + 2⁻¹¹)² − 1 of a product.
    let of_operands = if T::NAME == "f32" && !in_full { 2f64.powi(-10) + 2f64.powi(-22) } else { 0.0 };
    let step = match in_full {
        true => (k + 1) as f64 * f32::ROUNDING,
        false => (k * size_of::<T>() / 32 + 2) as f64 * 4.0 * f32::ROUNDING + of_operands,
    };
    let mut expected = Vec::new();
    for (z, y, x) in (0..batch).flat_map(|z| (0..m).flat_map(move |y| (0..ldc).map(move |x| (z, y, x)))) {
        if x >= n {
            expected.push((7.0, 0.0));
            continue;
        }
        let (mut sum, mut size) = if bias { (added[x].value(), added[x].value().abs()) } else { (0.0, 0.0) };
        for i in 0..k {
            let left = if transposed[0] { i * lda + y } else { y * lda + i };
            let right = if transposed[1] { x * ldb + i } else { i * ldb + x };
            let product = a[z * rows_a * lda + left].value() * b[z * rows_b * ldb + right].value();
            sum += product;
            size += product.abs();
        }
        expected.push((sum, size * step + sum.abs() * T::ROUNDING * 1.001));
    }
    figures.compare(&format!("{kernel}: {case:?}"), &c.read(), &expected)
}
