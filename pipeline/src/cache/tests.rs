use tomograd_core::{DType, Device, Random, Result, Seed, Tensor};

use tomograd_io::geometry::from_spacing;

use super::*;
use crate::{Boxes, Field, Points};

fn sample(name: &str) -> Result<Sample> {
    let image = Tensor::normal(&[2, 3, 4, 5], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
    let label = Tensor::uniform(&[3, 4, 5], 0.0, 9.0, Seed::new(2), DType::U8, Device::Cpu)?;
    Sample::new(name, &image, Some(&label))?
        .with_spacing(&[0.1 + 0.2, 1.0 / 3.0, 2.0])?
        .with_affine(&from_spacing([2.0, 1.0 / 3.0, 0.1 + 0.2])?)?
        .with("class", Field::Class(-7))?
        .with("labels", Field::Labels(vec![true, false]))?
        .with("numbers", Field::Numbers(vec![0.1, -1e300]))?
        .with("boxes", Field::Boxes(Boxes::new(&[([0.25, 0.0, 1.0], [1.0, 2.0, 3.0])], &[3])?))?
        .with("points", Field::Points(Points::new(&[[1.0, 0.1, -2.0]])?))
}

fn text(sample: &Sample) -> String {
    let field = |field: &Field| match field {
        Field::Image(tensor) | Field::Label(tensor) => {
            format!("{:?} {} {:?}", tensor.shape(), tensor.dtype(), tensor.to_vec_f64().unwrap())
        }
        other => format!("{other:?}"),
    };
    let fields: Vec<String> = sample.fields().map(|(name, value)| format!("{name}: {}", field(value))).collect();
    format!("{} {:?} {:?} {}", sample.name, sample.spacing(), sample.affine(), fields.join("\n"))
}

#[test]
fn a_file_holds_every_kind_of_field_to_the_bit() -> Result<()> {
    for sample in [sample("every kind")?, Sample::empty("none"), Sample::empty("class").with("c", Field::Class(1))?] {
        let mut bytes = Vec::new();
        format::write(&sample, &mut bytes)?;
        assert_eq!(bytes.len() as u64, format::length(&sample)?);
        assert_eq!(text(&format::read(&mut &bytes[..], bytes.len() as u64)?), text(&sample));
    }
    Ok(())
}

#[test]
fn damage_is_noticed() -> Result<()> {
    let mut good = Vec::new();
    format::write(&sample("case")?, &mut good)?;
    let mut random: Random = Seed::new(1).random();
    for end in 0..good.len() {
        assert!(format::read(&mut &good[..end], end as u64).is_err());
        assert!(format::read(&mut &good[..end], good.len() as u64).is_err());
    }
    for _ in 0..2000 {
        let mut bytes = good.clone();
        bytes[random.below(good.len() as u64) as usize] ^= 1 << random.below(8);
        assert!(format::read(&mut &bytes[..], bytes.len() as u64).is_err());
    }
    // A header that claims more data than there is doesn't allocate memory for it.
    let claim = r#"{"name":"x","spacing":[],"fields":[["image",{"Image":[1,1099511627776,1099511627776]}]]}"#;
    for claim in [claim.to_owned(), claim.replace("1099511627776,1099511627776", "1099511627776,9")] {
        let bytes = [&b"TOMOCASE"[..], &(claim.len() as u64).to_le_bytes(), claim.as_bytes(), &[0; 64]].concat();
        assert!(format::read(&mut &bytes[..], bytes.len() as u64).is_err());
    }
    Ok(())
}

#[test]
fn those_that_were_used_least_recently_leave_memory() -> Result<()> {
    let one = sample("x")?;
    let memory = Memory::new(3 * one.bytes() as u64);
    let mut made = Vec::new();
    let get = |number: usize, made: &mut Vec<usize>| {
        memory.get((0, number, 0), || {
            made.push(number);
            sample("x")
        })
    };
    for number in [1, 2, 3, 1, 4, 1, 2, 3] {
        get(number, &mut made)?;
    }
    // 2 was evicted for 4, 3 for 2, and 4 for 3.
    assert_eq!(made, [1, 2, 3, 4, 2, 3]);
    let statistics = memory.statistics();
    assert_eq!((statistics.hits, statistics.misses), (2, 6));
    assert!(statistics.bytes == 3 * one.bytes() as u64 && statistics.most == statistics.bytes);
    // A sample larger than the budget isn't cached and evicts nothing.
    let large = Sample::new("large", &Tensor::zeros(&[1, 99, 99], DType::F32, Device::Cpu)?, None)?;
    memory.get((0, 9, 0), || Ok(large))?;
    assert_eq!(memory.statistics().bytes, statistics.bytes);
    // A failure isn't cached.
    assert!(memory.get((0, 5, 0), || Err(Error::argument("test", "no"))).is_err());
    assert!(memory.get((0, 5, 0), || sample("x")).is_ok());
    Ok(())
}
