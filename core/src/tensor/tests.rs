use super::*;
use crate::{ErrorKind, Seed, Tensor, copies_on_write, memory};

fn iota(shape: &[usize]) -> Tensor {
    Tensor::arange(shape.iter().product(), DType::F32, Device::Cpu).unwrap().reshape(shape).unwrap()
}

#[test]
fn views_share_memory_and_show_the_right_elements() {
    let x = iota(&[2, 3, 4]);
    let y = x.permute(&[2, 0, 1]).unwrap().slice(0, 1, 2, 2).unwrap();
    assert!(y.shares_storage(&x));
    assert_eq!(y.shape(), [2, 2, 3]);
    assert_eq!(y.to_vec::<f32>().unwrap(), [1., 5., 9., 13., 17., 21., 3., 7., 11., 15., 19., 23.]);
    let z = y.contiguous().unwrap();
    assert!(!z.shares_storage(&x) && z.is_contiguous());
    assert_eq!(z.to_vec::<f32>().unwrap(), y.to_vec::<f32>().unwrap());
    let e = x.narrow(0, 1, 1).unwrap().select(2, 3).unwrap().expand(&[2, 3]).unwrap();
    assert_eq!(e.to_vec::<f32>().unwrap(), [15., 19., 23., 15., 19., 23.]);
    assert_eq!(
        x.transpose(0, 1).unwrap().reshape(&[6, 4]).unwrap().to_vec::<f32>().unwrap()[4..8],
        [12., 13., 14., 15.]
    );
}

#[test]
fn a_write_never_changes_another_tensor() {
    let mut x = iota(&[4]);
    let before = copies_on_write();
    x.as_mut_slice::<f32>().unwrap()[0] = 9.0;
    let y = x.clone();
    x.as_mut_slice::<f32>().unwrap()[1] = 8.0;
    assert_eq!(y.to_vec::<f32>().unwrap(), [9., 1., 2., 3.]);
    assert_eq!(x.to_vec::<f32>().unwrap(), [9., 8., 2., 3.]);
    let mut expanded = iota(&[1, 2]).expand(&[3, 2]).unwrap();
    expanded.as_mut_slice::<f32>().unwrap()[0] = 5.0;
    assert_eq!(expanded.to_vec::<f32>().unwrap(), [5., 1., 0., 1., 0., 1.]);
    assert!(copies_on_write() >= before + 2);
}

#[test]
fn empty_and_scalar_tensors_work() {
    let empty = Tensor::zeros(&[2, 0, 3], DType::F64, Device::Cpu).unwrap();
    assert_eq!(empty.permute(&[1, 2, 0]).unwrap().contiguous().unwrap().to_vec::<f64>().unwrap(), []);
    assert_eq!(empty.as_slice::<f64>().unwrap().len(), 0);
    assert_eq!(empty.narrow(0, 2, 0).unwrap().as_slice::<f64>().unwrap().len(), 0);
    assert_eq!(Tensor::scalar(2.5f32, Device::Cpu).unwrap().to_scalar().unwrap(), 2.5);
    assert!(empty.to_scalar().is_err());
}

#[test]
fn errors_say_what_was_expected() {
    let x = iota(&[2, 3]);
    assert_eq!(
        x.as_slice::<f64>().unwrap_err().to_string(),
        "as_slice: the tensor holds f32; expected f64; got shapes (2, 3)"
    );
    assert_eq!(x.transpose(0, 1).unwrap().as_slice::<f32>().unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(x.narrow(1, 2, 2).unwrap_err().kind(), ErrorKind::Argument);
    assert!(
        x.transpose(0, 5).is_err() && x.expand(&[2, 4]).is_err() && x.reshape(&[4]).is_err() && x.squeeze(0).is_err()
    );
    assert_eq!(Tensor::zeros(&[1 << 40, 1 << 40], DType::F32, Device::Cpu).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(Tensor::zeros(&[1], DType::F32, Device::Cuda(0)).unwrap_err().kind(), ErrorKind::Device);
    assert!(Tensor::from_slice(&[1.0f32], &[2], Device::Cpu).is_err());
}

#[test]
fn prints_so_that_a_person_can_read_it() {
    assert_eq!(iota(&[2, 2]).to_string(), "[[0.0000, 1.0000],\n [2.0000, 3.0000]] f32 (2, 2) cpu");
    let long = Tensor::arange(100, DType::I64, Device::Cpu).unwrap();
    assert_eq!(long.to_string(), "[0, 1, 2, ..., 97, 98, 99] i64 (100,) cpu");
    assert_eq!(Tensor::scalar(true, Device::Cpu).unwrap().to_string(), "true bool () cpu");
    let turned = iota(&[2, 4]).transpose(0, 1).unwrap();
    assert_eq!(
        format!("{turned:?}"),
        "Tensor(f32 (4, 2) cpu, strides [1, 4]: 0.0000, 4.0000, 1.0000, 5.0000, 2.0000, 6.0000, ...)"
    );
    assert_eq!(format!("{:?}", iota(&[0])), "Tensor(f32 (0,) cpu, strides [1]:)");
}

#[test]
fn converts_between_dtypes() {
    let x = Tensor::from_slice(&[-1.5f32, 0.0, 300.7, f32::NAN], &[4], Device::Cpu).unwrap();
    assert_eq!(x.converted(DType::U8).unwrap().to_vec::<u8>().unwrap(), [0, 0, 255, 0]);
    assert_eq!(x.converted(DType::I32).unwrap().to_vec::<i32>().unwrap(), [-1, 0, 300, 0]);
    assert_eq!(x.converted(DType::Bool).unwrap().to_vec::<bool>().unwrap(), [true, false, true, true]);
    assert_eq!(x.converted(DType::BF16).unwrap().to_vec_f64().unwrap()[0], -1.5);
}

#[test]
fn random_tensors_depend_on_seed_and_index_alone() {
    let seed = Seed::new(4).named("w");
    let short = Tensor::uniform(&[3], -1.0, 1.0, seed, DType::F32, Device::Cpu).unwrap();
    let long = Tensor::uniform(&[5], -1.0, 1.0, seed, DType::F32, Device::Cpu).unwrap();
    assert_eq!(short.to_vec::<f32>().unwrap(), long.to_vec::<f32>().unwrap()[..3]);
}

#[test]
fn uniform_values_stay_inside_the_range_in_every_dtype() {
    let seed = Seed::new(9);
    for (low, high) in [(0.0, 1.0), (-1.0, 1.0), (0.3, 0.7), (-0.7, -0.3), (-2.5, -1.0), (1.0, 1.001), (60000.0, 1e6)] {
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64] {
            // In f16, one of 4096 draws from 0..1 would be rounded to 1.
            let values = Tensor::uniform(&[40_000], low, high, seed, dtype, Device::Cpu).unwrap().to_vec_f64().unwrap();
            let narrow = Tensor::from_slice(&[low], &[1], Device::Cpu).unwrap().converted(dtype).unwrap();
            let narrow = narrow.to_vec_f64().unwrap()[0];
            let mut random = seed.random();
            for value in values {
                let drawn = random.uniform_in(low, high);
                let nearest =
                    Tensor::scalar(drawn, Device::Cpu).unwrap().converted(dtype).unwrap().to_scalar().unwrap();
                let inside = (low..high).contains(&value) || value == narrow;
                assert!(inside, "{dtype} {low} to {high}: {value}");
                assert!(value == nearest || !(low..high).contains(&nearest), "{dtype}: {value} for {drawn}");
            }
        }
    }
    let uniform = |low, high, dtype| Tensor::uniform(&[100], low, high, seed, dtype, Device::Cpu);
    assert!(uniform(0.0, 1.0, DType::Bool).unwrap().to_vec::<bool>().unwrap().iter().any(|&value| value));
    assert_eq!(uniform(0.1, 0.1, DType::F32).unwrap().to_vec::<f32>().unwrap(), [0.1; 100]);
    for (low, high) in [(1.0, 0.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
        assert!(uniform(low, high, DType::F32).is_err(), "{low} to {high}");
    }
}

#[test]
fn meta_tensors_have_shapes_and_views_but_no_elements() {
    let huge = Tensor::normal(&[64, 1 << 20, 512], 0.0, 1.0, Seed::new(1), DType::F32, Device::Meta).unwrap();
    let view = huge.transpose(0, 2).unwrap().narrow(1, 5, 100).unwrap();
    let copy = view.reshape(&[512, 6400]).unwrap();
    assert_eq!((copy.shape(), copy.dtype(), copy.device()), (&[512, 6400][..], DType::F32, Device::Meta));
    assert!(view.shares_storage(&huge) && !copy.shares_storage(&huge));
    assert_eq!(copy.converted(DType::F64).unwrap().dtype(), DType::F64);
    assert_eq!(copy.to_string(), "[...] f32 (512, 6400) meta");
    let refused = [
        copy.to_vec::<f32>().map(drop),
        copy.to_vec_f64().map(drop),
        copy.as_slice::<f32>().map(drop),
        copy.clone().as_mut_slice::<f32>().map(drop),
        copy.to(Device::Cpu).map(drop),
        Tensor::ones(&[], DType::F32, Device::Meta).unwrap().to_scalar().map(drop),
        TensorBuilder::<f32>::new("test", &[2], Device::Meta).unwrap().uninit().map(drop),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
        assert!(error.to_string().contains("a meta tensor has no elements"), "{error}");
    }
    assert!(Tensor::from_slice(&[1.0f32], &[2], Device::Meta).is_err());
}

#[test]
fn the_statistics_of_meta_tensors_are_those_of_blocks() {
    let sizes = |device: Device| {
        let before = memory::statistics(device).unwrap().live;
        let mut x = Tensor::zeros(&[1000, 1000], DType::F32, device).unwrap();
        let view = x.narrow(0, 0, 10).unwrap();
        let one = memory::statistics(device).unwrap().live - before;
        x.make_unique().unwrap();
        let two = memory::statistics(device).unwrap().live - before;
        drop((x, view));
        (one, two, memory::statistics(device).unwrap().live - before)
    };
    let (meta, statistics) = memory::meter(|| sizes(Device::Meta));
    assert_eq!(meta, (4_000_000, 8_000_000, 0));
    assert_eq!((statistics.peak, statistics.tensor_peak, statistics.live), (8_000_000, 8_000_000, 0));
    let (result, _) = memory::meter(|| {
        memory::set_limit(Device::Meta, Some(1 << 20)).unwrap();
        Tensor::zeros(&[1 << 20], DType::F32, Device::Meta)
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::OutOfMemory);
}
