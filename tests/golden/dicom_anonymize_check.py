#!/usr/bin/env python3
"""Checks `tomograd anonymize` tag by tag against the rules that PyPI's dicom-anonymizer carries (PS3.15, table E.1-1).

    pip install pydicom dicom-anonymizer
    python dicom_anonymize_check.py PROGRAM WORK_DIR PATH...

First, a file with every attribute of the table, at the root and in a sequence: what became of each is compared with its action, and with
what dicom-anonymizer makes of the same file; then with each option. Then every DICOM file below each PATH: no attribute of the
table keeps its value, no private one is left, UIDs are mapped one to one over the folder, dates move by one number of days a patient, the
pixel data has the same bytes, and all other attributes are as they were. Exit code 1 if anything differs.
"""
import collections
import datetime
import pathlib
import subprocess
import sys
import warnings

import pydicom
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

warnings.filterwarnings("ignore")
KINDS = {"D_TAGS": "D", "Z_TAGS": "Z", "X_TAGS": "X", "U_TAGS": "U", "Z_D_TAGS": "Z/D", "X_Z_TAGS": "X/Z", "X_D_TAGS": "X/D",
         "X_Z_D_TAGS": "X/Z/D", "X_Z_U_STAR_TAGS": "X/Z/U"}
RULES = {tag: kind for name, kind in KINDS.items() for tag in getattr(table, name) if len(tag) == 2}
RULES.update({(0x6000, 0x3000): "X", (0x6000, 0x4000): "X", (0x5000, 0x0010): "X"})
META = {tag for tag in RULES if tag[0] in (0, 2)}
METHOD = {(0x12, 0x62), (0x12, 0x63), (0x12, 0x64), (0x28, 0x303)}
VALUES = {"AE": "STATION7", "AS": "042Y", "CS": "SOMETHING", "DA": "20240229", "DT": "20240229112233.5", "TM": "112233", "DS": "4.5",
          "IS": "4", "LO": "Secret words", "LT": "Secret text", "PN": "Doe^Jane", "SH": "Secret", "ST": "Secret", "UC": "Secret", "UT": "Secret",
          "UR": "http://secret.org", "UI": "1.2.3.4.5", "FD": 4.5, "FL": 4.5, "SL": 4, "SS": 4, "UL": 4, "US": 4, "OB": b"secret!!",
          "OW": b"secret!!", "UN": b"secret!!", "OF": b"secret!!", "OD": b"secret!!", "OL": b"secret!!", "OV": b"secret!!", "SV": 4, "UV": 4,
          "AT": 0x00100010}


def vr_of(tag):
    vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "LO"
    return {"US or SS": "US", "OB or OW": "OW", "US or SS or OW": "US", "US or OW": "US"}.get(vr, vr)


def filled(depth=0):
    """A data set with every attribute of the table; sequences hold a name, a UID, a date and a number."""
    data = Dataset()
    for tag in RULES:
        if tag in META:
            continue
        vr = vr_of(tag)
        if vr == "SQ":
            item = Dataset()
            item.PatientName, item.ReferencedSOPInstanceUID, item.StudyDate, item.Rows = "Doe^Jane", "1.2.3.4.5", "20240229", 7
            data.add_new(tag, vr, [item])
        else:
            data.add_new(tag, vr, VALUES[vr])
    data.Rows, data.SliceThickness = 3, "2.5"
    data.add_new((0x9, 0x10), "LO", "ACME")
    data.add_new((0x9, 0x1001), "LO", "Secret")
    data.PatientID = "Doe4711"
    if depth == 0:
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4.9"
        # A sequence that the table leaves alone.
        data.SharedFunctionalGroupsSequence = [filled(1)]
    return data


def saved(data, path):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.SourceApplicationEntityTitle = "SECRET"
    file = FileDataset(path, data, file_meta=meta, preamble=b"secret" + b"\0" * 122)
    file.save_as(path, enforce_file_format=True)


def pseudonym(data):
    """Patients stay apart."""
    return data.PatientID == data.PatientName and len(data.PatientID) == 12


def run(program, *arguments, code=0):
    done = subprocess.run([program, "anonymize", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == code, (done.returncode, done.stderr)
    return done


def state(before, after):
    """removed, emptied, kept, or replaced."""
    if after is None:
        return "removed"
    if after.value is None or len(str(after.value)) == 0 or (after.VR == "SQ" and len(after.value) == 0):
        return "emptied"
    return "kept" if after.value == before.value else "replaced"


EXPECTED = {"X": {"removed"}, "Z": {"emptied"}, "X/Z": {"emptied"}, "D": {"replaced"}, "Z/D": {"replaced"}, "X/D": {"replaced"},
            "X/Z/D": {"replaced"}, "U": {"replaced"}, "X/Z/U": {"replaced"}}


def every_attribute(program, work, key):
    path, out = work / "all.dcm", work / "all_out.dcm"
    before = filled()
    saved(before, path)
    run(program, path, out, "--key-file", key, "--force")
    after = pydicom.dcmread(out)
    assert out.read_bytes().find(b"ecret") < 0 and out.read_bytes().find(b"Doe") < 0, "a secret is left"
    theirs = filled()
    anonymize_dataset(theirs, base_rules_gen=lambda: initialize_actions("dicomfields_2026c"))
    counts, against, others = collections.Counter(), collections.Counter(), []
    for level, (old, new, other) in {"root": (before, after, theirs), "item": (
            before.SharedFunctionalGroupsSequence[0], after.SharedFunctionalGroupsSequence[0], None)}.items():
        for tag, kind in RULES.items():
            if tag in META:
                continue
            became = state(old[tag], new.get(tag))
            allowed = EXPECTED[kind]
            # A name for which the rule allows a dummy: patients stay apart.
            if tag in ((0x10, 0x10), (0x10, 0x20)):
                allowed = {"replaced"}
            assert became in allowed, (level, hex(tag[0]), hex(tag[1]), kind, became)
            counts[f"{level} {kind} {became}"] += 1
            if other is not None:
                their = state(old[tag], other.get(tag))
                against[(became, their)] += 1
                if became != their:
                    others.append((f"({tag[0]:04X},{tag[1]:04X})", kind, became, their, old[tag].VR))
        assert new.Rows == 3 and new.SliceThickness == "2.5" and (9, 0x1001) not in new and (9, 0x10) not in new
    assert pseudonym(after) and after.PatientIdentityRemoved == "YES" and after.LongitudinalTemporalInformationModified == "REMOVED"
    assert [code.CodeValue for code in after.DeidentificationMethodCodeSequence] == ["113100"]
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID != "1.2.3.4.9"
    print(f"every attribute of the table: {sum(counts.values())} as their actions say, at the root and in an item")
    for what, count in sorted(counts.items()):
        print(f"    {count:4} {what}")
    print("    beside dicom-anonymizer at the root: " + ", ".join(f"{n} {a}" if a == b else f"{n} {a} (there {b})"
                                                               for (a, b), n in sorted(against.items())))
    why = collections.Counter((kind, became, their, vr if vr in ("DA", "DT", "TM") else "SQ" if vr == "SQ" else "numbers" if vr in
                               ("DS", "IS", "FD", "FL", "US", "UL", "SS", "SL") else vr) for _, kind, became, their, vr in others)
    for (kind, became, their, vr), count in sorted(why.items()):
        print(f"        {count:3} of action {kind}, {vr}: {became}, there {their}")


def options(program, work, key):
    """Each option keeps what its column of the table says, and nothing else changes."""
    path, base, out = work / "all.dcm", work / "all_out.dcm", work / "option.dcm"
    before, basic = pydicom.dcmread(path), pydicom.dcmread(base)
    letters = {"uids": "u", "device": "vV", "institution": "i", "patient": "pP", "dates": "t", "shifted-dates": "t", "descriptions": "d",
               "structured-content": "s"}
    profile = {}
    for line in (pathlib.Path(__file__).parents[2] / "io/src/dicom/anonymize/profile.txt").read_text().splitlines():
        group, _, flags, *elements = line.split(" ")
        profile.update({(int(group, 16), int(element, 16)): flags for element in elements})
    for option, flags in letters.items():
        run(program, path, out, "--key-file", key, "--force", "--keep", option)
        after, kept, cleaned = pydicom.dcmread(out), 0, 0
        for tag in RULES:
            if tag in META:
                continue
            own = [flag for flag in profile.get(tag, "") if flag in flags]
            became = state(before[tag], after.get(tag))
            if not own:
                assert after.get(tag) == basic.get(tag) or before[tag].VR in ("SQ", "UI"), (option, tag)
            elif option == "shifted-dates" and before[tag].VR in ("DA", "DT"):
                moved = datetime.date.fromisoformat(after[tag].value[:8])
                days = (datetime.date(2024, 2, 29) - moved).days
                assert 1 <= days <= 3650 and days == shift_of(after), (option, tag, days)
                assert after[tag].value[8:] == before[tag].value[8:]
                cleaned += 1
            elif own[0] in "uvipt" and before[tag].VR != "SQ":
                assert became == "kept", (option, tag, became)
                kept += 1
            else:
                assert b"ecret" not in str(after.get(tag)).encode() and "Doe" not in str(after.get(tag)), (option, tag)
                cleaned += 1
        codes = [code.CodeValue for code in after.DeidentificationMethodCodeSequence]
        print(f"option {option}: {kept} attributes kept, {cleaned} moved, cleaned or kept by what is in them; codes {codes}")


def shift_of(data):
    return (datetime.date(2024, 2, 29) - datetime.date.fromisoformat(data.ContentDate)).days


def pixels(data):
    """The bytes of the pixel data as they are in the file."""
    for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if name in data:
            return data[name].value
    return None


def folder(program, work, key, path):
    uids, days, checked, values, same, refused = {}, collections.defaultdict(set), 0, 0, 0, []
    arguments = ("--key-file", key, "--keep", "shifted-dates", "--burned-in", "--force")
    for file in sorted(pathlib.Path(path).rglob("*")):
        try:
            before = pydicom.dcmread(file)
            before.walk(lambda *_: None)
        except Exception:
            continue
        out = work / "one.dcm"
        done = subprocess.run([program, "anonymize", file, out, *arguments], capture_output=True, text=True)
        if done.returncode:
            refused.append(f"{file.name}: {done.stderr.strip().splitlines()[-1].removeprefix('tomograd: ').replace(str(file), '…')[:150]}")
            continue
        after = pydicom.dcmread(out)
        assert before.file_meta.get("TransferSyntaxUID", after.file_meta.TransferSyntaxUID) == after.file_meta.TransferSyntaxUID, file
        # One whose fragments are cut off has no pixels for pydicom.
        assert pixels(before) in (None, pixels(after)), (file, "pixels")
        same += pixels(before) is not None
        try:
            compare(before, after, uids, days[str(before.get("PatientID") or before.get("PatientName") or file)])
        except Exception as error:
            raise AssertionError(file) from error
        checked += 1
        values += sum(1 for _ in before.iterall())
    assert len(set(uids.values())) == len(uids), "two UIDs became one"
    assert all(len(moved) <= 1 for moved in days.values()), days
    print(f"{path}: {checked} files, {values} attributes, {len(uids)} UIDs one to one, {len(days)} patients, {same} with pixels equal to "
          f"the byte; {len(refused)} refused")
    for line in refused:
        print(f"    {line}")


def compare(before, after, uids, days):
    for element in before:
        tag = (element.tag.group, element.tag.element)
        if tag in METHOD or tag[1] == 0:
            continue
        new = after.get(tag)
        if tag[0] % 2:
            assert new is None, tag
            continue
        rule = RULES.get(tag) or ("X" if 0x5000 <= tag[0] <= 0x60FF and tag[0] % 2 == 0 else None)
        if rule is None:
            known = dictionary_has_tag(element.tag) or element.tag.group in range(0x5000, 0x6100)
            if element.VR == "SQ" and known:
                assert len(element.value) == len(new.value), tag
                for old_item, new_item in zip(element.value, new.value):
                    compare(old_item, new_item, uids, days)
            elif known:
                assert new is not None and new.value == element.value, (tag, element.value, new)
        elif rule == "U" and element.VR == "UI" and element.value:
            old, new = ([element.value], [new.value]) if isinstance(element.value, str) else (element.value, new.value)
            for a, b in zip(old, new):
                if str(a).startswith("1.2.840.10008."):
                    assert a == b
                else:
                    assert uids.setdefault(str(a), str(b)) == str(b) and a != b, (a, b)
        elif element.VR in ("DA", "DT") and new is not None and new.value and element.value and tag != (0x10, 0x30):
            try:
                moved = datetime.date.fromisoformat(str(element.value)[:8]) - datetime.date.fromisoformat(str(new.value)[:8])
                if str(new.value)[:8] != "19000101":
                    days.add(moved.days)
            except ValueError:
                pass
        # Times, and the offset from UTC, stay where dates are moved.
        elif element.VR in ("SQ", "TM") or tag == (8, 0x201) or not element.value:
            pass
        elif new is not None and new.value:
            assert new.value != element.value or element.VR in ("DS", "IS", "US") and not element.value, (tag, element.value)


def main():
    program, work, *paths = sys.argv[1:]
    program = pathlib.Path(program).resolve()
    work = pathlib.Path(work)
    work.mkdir(parents=True, exist_ok=True)
    key = work / "key"
    key.write_bytes(b"0123456789abcdef")
    every_attribute(program, work, key)
    options(program, work, key)
    for path in paths:
        folder(program, work, key, path)
    print("all as expected")


if __name__ == "__main__":
    main()
