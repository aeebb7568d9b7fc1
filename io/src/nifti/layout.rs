//! The two versions of the NIfTI header, and the byte offsets of their fields (nifti1.h and nifti2.h of nifti.nimh.nih.gov).

/// The format version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// 348 bytes, axes of at most 32767 voxels, 32-bit numbers.
    One,
    /// 540 bytes, 64-bit sizes and numbers.
    Two,
}

/// Byte offsets of the fields of a version.
pub(super) struct Places {
    pub(super) length: usize,
    pub(super) magic: usize,
    pub(super) datatype: usize,
    pub(super) dim: usize,
    pub(super) pixdim: usize,
    pub(super) offset: usize,
    pub(super) slope: usize,
    /// cal_max and cal_min.
    pub(super) display: usize,
    pub(super) units: usize,
    /// qform_code; sform_code follows.
    pub(super) codes: usize,
    /// Quaternion b, c, d; offsets x, y, z; the three rows of the sform.
    pub(super) forms: usize,
    /// slice_start, slice_end, slice_code, slice_duration, dim_info: (offset, bytes).
    pub(super) slices: [(usize, usize); 5],
    /// Fields that are floating-point in both versions: (offset, count).
    pub(super) floats: [(usize, usize); 4],
    /// intent_code.
    pub(super) intent: usize,
    /// Text fields, which have the same length in both versions: descrip, aux_file, intent_name.
    pub(super) texts: [(usize, usize); 3],
}

const ONE: Places = Places {
    length: 348,
    magic: 344,
    datatype: 70,
    dim: 40,
    pixdim: 76,
    offset: 108,
    slope: 112,
    display: 124,
    units: 123,
    codes: 252,
    forms: 256,
    slices: [(74, 2), (120, 2), (122, 1), (132, 4), (39, 1)],
    floats: [(56, 3), (112, 2), (124, 2), (136, 1)],
    intent: 68,
    texts: [(148, 80), (228, 24), (328, 16)],
};

const TWO: Places = Places {
    length: 540,
    magic: 4,
    datatype: 12,
    dim: 16,
    pixdim: 104,
    offset: 168,
    slope: 176,
    display: 192,
    units: 500,
    codes: 344,
    forms: 352,
    slices: [(224, 8), (232, 8), (496, 4), (208, 8), (524, 1)],
    floats: [(80, 3), (176, 2), (192, 2), (216, 1)],
    intent: 504,
    texts: [(240, 80), (320, 24), (508, 16)],
};

impl Version {
    pub(super) fn places(self) -> &'static Places {
        match self {
            Version::One => &ONE,
            Version::Two => &TWO,
        }
    }

    /// The first bytes of the magic: for a single file, and for a pair.
    pub(super) fn magics(self) -> [&'static [u8; 4]; 2] {
        match self {
            Version::One => [b"n+1\0", b"ni1\0"],
            Version::Two => [b"n+2\0", b"ni2\0"],
        }
    }
}
