use tomograd_core::{DType, Device};

use super::*;

/// The events of [`known`] as TensorBoard 2.21 writes them (`tensorboard.summary.writer.record_writer.RecordWriter`).
const TENSORBOARD: &str = "\
    1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9200000000000000029eda95009000010\
    40fc54d94110072a130a110a0a747261696e2f6c6f7373150000203fad3118f52600000000000000734fe3000900001040fc54d94110ac02\
    2a180a160a057368656574220d080210ac021803220489504e47eefa75953a000000000000001295eae20900001040fc54d9411080808080\
    80202a280a260a0672656d61726b4212080712041202080142086772c3b6c39f65724a080a060a04746578748971455a";

fn known() -> Vec<u8> {
    let events = [
        (0, Content::Version("brain.Event:2")),
        (7, Content::Scalar("train/loss", 0.625)),
        (300, Content::Image { tag: "sheet", height: 2, width: 300, channels: 3, png: b"\x89PNG" }),
        (1 << 40, Content::Text("remark", "größer")),
    ];
    let mut bytes = Vec::new();
    for (step, content) in events {
        record::write(&mut bytes, &event(1_700_000_000.25, step, &content)).unwrap();
    }
    bytes
}

/// The examples of RFC 3720, B.4, and the standard check value.
#[test]
fn checksums_are_crc32c() {
    let counting: Vec<u8> = (0..32).collect();
    let falling: Vec<u8> = (0..32).rev().collect();
    let cases: [(&[u8], u32); 6] = [
        (&[], 0),
        (b"123456789", 0xE306_9283),
        (&[0; 32], 0x8A91_36AA),
        (&[0xFF; 32], 0x62A8_AB43),
        (&counting, 0x46DD_794E),
        (&falling, 0x113F_DB5C),
    ];
    for (bytes, sum) in cases {
        assert_eq!(record::crc32c(bytes), sum, "{bytes:?}");
    }
}

#[test]
fn bytes_are_those_of_tensorboard() {
    let text: String = known().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, TENSORBOARD);
}

/// Every truncation and every flipped bit: the retained part ends with a complete record before the damage.
#[test]
fn damage_ends_what_is_read() {
    let bytes = known();
    let end = |bytes: &[u8], step| record::end_of_step(&mut &bytes[..], bytes.len() as u64, step).unwrap() as usize;
    // The ends of the records: payloads of 24, 32, 38 and 58 bytes, plus 16 each.
    let ends = [0, 40, 88, 142, 216];
    assert_eq!([6, 7, 299, 300, 1 << 40].map(|step| end(&bytes, step)), [40, 88, 88, 142, 216]);
    let whole = |size: usize| ends.into_iter().rev().find(|end| *end <= size).unwrap();
    for size in 0..=bytes.len() {
        assert_eq!(end(&bytes[..size], u64::MAX), whole(size), "{size} bytes");
        // A file that is shorter than its reported size.
        assert_eq!(record::end_of_step(&mut &bytes[..size], 1 << 60, u64::MAX).unwrap() as usize, whole(size));
    }
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(end(&bytes, u64::MAX), whole(bit / 8), "bit {bit}");
    }
    // A huge length with a valid checksum, and invalid messages.
    let length = (u64::MAX - 3).to_le_bytes();
    let huge = [&length[..], &record::masked(&length).to_le_bytes(), &[0; 30]].concat();
    assert_eq!(end(&huge, 0), 0);
    for message in [&[0x10][..], &[0x0A, 0xFF, 1], &[0x0B], &[0xFF; 11], &[0x10, 0x80]] {
        let mut bytes = Vec::new();
        record::write(&mut bytes, message).unwrap();
        assert_eq!(end(&bytes, u64::MAX), 0, "{message:?}");
    }
}

#[test]
fn a_file_goes_on_behind_the_step_that_is_known() {
    let folder = std::env::temp_dir().join(format!("tomograd-events-{}", std::process::id()));
    let mut events = EventWriter::create(&folder).unwrap();
    for step in 1..=5 {
        events.scalar("loss", step, step as f64).unwrap();
    }
    let pixels = Tensor::zeros(&[2, 3, 3], DType::U8, Device::Cpu).unwrap();
    events.image("sheet", 5, &pixels).unwrap();
    assert!(events.image("sheet", 5, &pixels.narrow(2, 0, 2).unwrap()).is_err());
    assert!(events.image("sheet", 5, &Tensor::zeros(&[0, 3], DType::U8, Device::Cpu).unwrap()).is_err());
    assert!(events.scalar("loss", u64::MAX, 0.0).is_err());
    events.flush().unwrap();
    let (path, whole) = (events.path().to_owned(), fs::read(events.path()).unwrap());
    drop(events);
    let [version, scalar] = [40, 16 + 9 + 2 + 2 + 2 + 6 + 5];
    // An incomplete last record, and events beyond the step.
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let mut events = EventWriter::resume(&folder, 3).unwrap();
    assert_eq!(events.path(), path);
    assert_eq!(fs::read(&path).unwrap(), whole[..version + 3 * scalar]);
    events.scalar("loss", 4, 4.0).unwrap();
    events.flush().unwrap();
    let again = fs::read(&path).unwrap();
    assert_eq!(again.len(), version + 4 * scalar);
    drop(events);
    // No complete record: the file is replaced.
    fs::write(&path, b"no events").unwrap();
    let events = EventWriter::resume(&folder, 3).unwrap();
    assert_eq!(fs::read(events.path()).unwrap().len(), version);
    // Two files of the same second get different names; files of other writers stay.
    EventWriter::create(&folder).unwrap();
    fs::write(folder.join("events.out.tfevents.1.host"), b"").unwrap();
    assert_eq!(files(&folder).unwrap().len(), 2);
    EventWriter::remove(&folder).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    fs::remove_dir_all(&folder).unwrap();
    assert!(EventWriter::create("/dev/null/there").is_err());
}
