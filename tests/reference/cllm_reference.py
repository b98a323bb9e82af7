#!/usr/bin/python3
"""A second decoder of the .cllm container, written from spec/FORMAT.md alone.

It shares no code and no author's habit with the C reader, so that where both agree, the document is what they agree on. It is
meant to be read next to the document: "§6.2" in a comment is a section of FORMAT.md. Plain loops, no cleverness; a 6 MB model
takes a few seconds.

    cllm_reference.py list FILE          what the container holds; decodes no payload
    cllm_reference.py verify FILE...     decodes everything, checks every checksum and digest
    cllm_reference.py restore FILE DIR   writes the files below DIR; overwrites nothing
    cllm_reference.py selftest           the examples that FORMAT.md gives in bytes

Needs Python 3.11, python3-zstandard, python3-xxhash.
"""

import hashlib
import math
import os
import struct
import sys
from dataclasses import dataclass, field

import xxhash
import zstandard

HEADER_MAGIC = bytes.fromhex("89434C4D0D0A1A0A")
FOOTER_MAGIC = bytes.fromhex("89454E440D0A1A0A")
HEADER_BYTES = 64
FOOTER_BYTES = 104
FORMAT_VERSION = 0
PAGE_ALIGNED_FROM = 4194304  # §5

# §11
MAX_CONTAINER_BYTES = 2**62
MAX_OBJECT_BYTES = 2**62
MAX_INDEX_BYTES = 2**30
MAX_DATA_OBJECTS = 2**22
MAX_TENSORS = 2**21
MAX_FILES = 2**20
MAX_TABLES_PER_OBJECT = 65535
MAX_TABLES = 2**20
MAX_RANK = 64
MAX_WINDOW = 2**31  # §7
MAX_CODE_BITS = 11  # §6.2

# §12
FORM_RAW, FORM_ZSTD, FORM_FLOAT, FORM_PLANES, FORM_SPARSE, FORM_SCALED = 0, 1, 2, 3, 4, 5
SCALED_BF16, SCALED_F16, SCALED_F32 = 1, 2, 3
DTYPE_BITS = {
    b"BOOL": 8, b"F4": 4, b"F6_E2M3": 6, b"F6_E3M2": 6, b"U8": 8, b"I8": 8, b"F8_E5M2": 8, b"F8_E4M3": 8, b"F8_E8M0": 8,
    b"F8_E4M3FNUZ": 8, b"F8_E5M2FNUZ": 8, b"I16": 16, b"U16": 16, b"F16": 16, b"BF16": 16, b"I32": 32, b"U32": 32,
    b"F32": 32, b"C64": 64, b"F64": 64, b"I64": 64, b"U64": 64,
}  # fmt: skip

NOT_A_CONTAINER, UNSUPPORTED, DAMAGED, CORRUPT, LIMIT = "not a container", "unsupported", "damaged", "corrupt", "limit"


class Rejected(Exception):
    """The reader gives an error and no decoded bytes (§2)."""

    def __init__(self, kind, reason):
        super().__init__(f"({kind}): {reason}")
        self.kind = kind


def require(condition, kind, reason):
    if not condition:
        raise Rejected(kind, reason)


# ---------------------------------------------------------------------------------------------------------- §2 Conventions


def align(x, a):
    return (x + a - 1) // a * a


def ceil_div(x, y):
    return (x + y - 1) // y


def xxh3(data):
    return xxhash.xxh3_64_intdigest(data)


def is_zero(data):
    return data.count(0) == len(data)


class Cursor:
    """Takes fields from the front of some bytes; a field that does not fit is corrupt."""

    def __init__(self, data, what):
        self.data, self.what, self.position = data, what, 0

    def remaining(self):
        return len(self.data) - self.position

    def take(self, count):
        require(count <= self.remaining(), CORRUPT, f"{self.what} ends within a field")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, count):
        return int.from_bytes(self.take(count), "little")

    def u8(self):
        return self.number(1)

    def u16(self):
        return self.number(2)

    def u32(self):
        return self.number(4)

    def u64(self):
        return self.number(8)

    def finish(self):
        require(self.remaining() == 0, CORRUPT, f"{self.what} has {self.remaining()} bytes too many")


def read_bit_numbers(data, width, count):
    """count numbers of width bits each from a bit stream: least significant bits first, in bytes and in numbers (§2)."""
    numbers, pending, pending_bits, position = [], 0, 0, 0
    for _ in range(count):
        while pending_bits < width:
            pending |= data[position] << pending_bits
            pending_bits += 8
            position += 1
        numbers.append(pending & ((1 << width) - 1))
        pending >>= width
        pending_bits -= width
    return numbers


# --------------------------------------------------------------------------------------------------------------- structures


@dataclass
class CodeTable:
    lengths: dict  # symbol -> code word length, symbols in ascending order
    palette: list = None  # the element that each symbol stands for; None: symbols are fields of elements
    lookup: list = None  # made by build_lookup at the first use


@dataclass
class Layout:
    element_bytes: int
    symbol_shift: int
    symbol_bits: int
    zero_bits: int
    segment_log2: int
    palette_count: int
    table_count: int
    tables: list = field(default_factory=list)


@dataclass
class Chunk:
    stored_bytes: int
    form: int
    table_index: int
    mask_table_index: int
    checksum: int
    decoded_bytes: int
    position: int


@dataclass
class DataObject:
    decoded_bytes: int
    chunk_bytes: int
    root: bytes
    layout: Layout = None
    chunks: list = field(default_factory=list)
    gap_start: int = 0  # the zeros before the first chunk
    start: int = 0


@dataclass
class Tensor:
    object_index: int
    file_index: int
    element_bits: int
    name: bytes
    dtype: bytes
    shape: list


@dataclass
class FileRecord:
    size: int
    sha256: bytes
    name: bytes
    parts: list


@dataclass
class Footer:
    index_offset: int
    index_stored_bytes: int
    index_bytes: int
    manifest_bytes: int
    index_checksum: int
    root: bytes


@dataclass
class Container:
    stream: object  # the open file
    total_bytes: int
    root: bytes
    objects: list
    tensors: list
    files: list


# --------------------------------------------------------------------------------------------------------- §4, §7 both ends


def read_at(stream, position, count):
    stream.seek(position)
    data = stream.read(count)
    require(len(data) == count, CORRUPT, f"the file ends before byte {position + count}")
    return data


def read_header(stream, total_bytes):
    """§4, §10 steps 1 and 2. Returns the header's checksum field, which the footer repeats."""
    magic = read_at(stream, 0, min(8, total_bytes))
    require(magic == HEADER_MAGIC, NOT_A_CONTAINER, "the magic is missing")
    require(total_bytes >= HEADER_BYTES, CORRUPT, "cut short within the header")
    header = read_at(stream, 0, HEADER_BYTES)
    checksum = int.from_bytes(header[56:64], "little")
    require(xxh3(header[:56]) == checksum, DAMAGED, "header checksum")
    version, _reserved, _compatible, incompatible = struct.unpack("<I4sQQ", header[8:32])
    require(version == FORMAT_VERSION, UNSUPPORTED, f"format version {version}")
    require(incompatible == 0, UNSUPPORTED, f"feature bits {incompatible:#x}")
    return checksum


def read_footer(stream, total_bytes, header_checksum):
    """§7, §10 step 3."""
    require(total_bytes >= HEADER_BYTES + FOOTER_BYTES, CORRUPT, "cut short: no room for a footer")
    require(total_bytes <= MAX_CONTAINER_BYTES, LIMIT, f"container of {total_bytes} bytes")
    footer_start = total_bytes - FOOTER_BYTES
    data = read_at(stream, footer_start, FOOTER_BYTES)
    require(data[96:] == FOOTER_MAGIC, CORRUPT, "no footer at the end: cut short, or bytes were appended")
    require(xxh3(data[:88]) == int.from_bytes(data[88:96], "little"), DAMAGED, "footer checksum")
    cursor = Cursor(data, "the footer")
    footer = Footer(cursor.u64(), cursor.u64(), cursor.u64(), cursor.u64(), cursor.u64(), b"")
    length = cursor.u64()
    footer.root = cursor.take(32)
    repeated_checksum = cursor.u64()

    stored = footer.index_stored_bytes
    require(footer.index_offset >= HEADER_BYTES, CORRUPT, "the index starts within the header")
    require(footer.index_offset + stored == footer_start, CORRUPT, "the index does not end where the footer starts")
    require(footer.index_bytes >= stored, CORRUPT, "the index is larger stored than decoded")
    require(footer.index_bytes <= MAX_INDEX_BYTES, LIMIT, f"index of {footer.index_bytes} bytes")
    require(footer.index_bytes <= 64 * stored + 63, LIMIT, "the index decodes to more than 64 times its stored size")
    require(footer.manifest_bytes <= footer.index_bytes, CORRUPT, "the manifest is larger than the index")
    require(length == total_bytes, CORRUPT, f"the length is {total_bytes}, the footer says {length}")
    require(repeated_checksum == header_checksum, CORRUPT, "header and footer are not of one container")
    return footer


def find_frame_end(data):
    """Where a Zstandard frame ends by its block headers (RFC 8878, 3.1.1.2); its first bytes have been checked."""
    position = zstandard.frame_header_size(data)
    last = False
    while not last:
        require(position + 3 <= len(data), CORRUPT, "zstd frame cut short")
        block = int.from_bytes(data[position : position + 3], "little")
        last, block_type, block_bytes = block & 1, block >> 1 & 3, block >> 3
        position += 3 + (1 if block_type == 1 else block_bytes)  # type 1: one byte, repeated
    return position


def zstd_frame_bytes(data):
    """The size of the frame that data starts with."""
    require(data[:4] == b"\x28\xb5\x2f\xfd", CORRUPT, "not a Zstandard frame")
    try:
        frame = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as error:
        raise Rejected(CORRUPT, f"zstd: {error}") from None
    return find_frame_end(data) + (4 if frame.has_checksum else 0)


def decode_zstd(data, decoded_bytes):
    """§7, §12 form 1: exactly one frame, no dictionary, exactly decoded_bytes.

    The frame's size may or may not be in its header.
    """
    try:
        require(zstd_frame_bytes(data) == len(data), CORRUPT, "not exactly one zstd frame")
        frame = zstandard.get_frame_parameters(data)
        require(frame.dict_id == 0, CORRUPT, "zstd frame that needs a dictionary")
        known = frame.content_size != zstandard.CONTENTSIZE_UNKNOWN
        require(not known or frame.content_size == decoded_bytes, CORRUPT, "zstd frame of another size")
        require(frame.window_size <= MAX_WINDOW, CORRUPT, f"zstd frame with a window of {frame.window_size} bytes")
        decoded = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompress(data, max_output_size=decoded_bytes)
    except zstandard.ZstdError as error:
        raise Rejected(CORRUPT, f"zstd: {error}") from None
    require(len(decoded) == decoded_bytes, CORRUPT, f"zstd frame of {len(decoded)} bytes, expected {decoded_bytes}")
    return decoded


def read_index(stream, footer):
    """§7, §10 step 4."""
    stored = read_at(stream, footer.index_offset, footer.index_stored_bytes)
    require(xxh3(stored) == footer.index_checksum, DAMAGED, "index checksum")
    if footer.index_stored_bytes == footer.index_bytes:
        return stored
    return decode_zstd(stored, footer.index_bytes)


# ------------------------------------------------------------------------------------------------------------ §6.1 Manifest


def parse_data_record(cursor):
    record = DataObject(cursor.u64(), cursor.u32(), cursor.take(32))
    require(record.decoded_bytes <= MAX_OBJECT_BYTES, CORRUPT, "data object above 2^62 bytes")
    chunk_bytes = record.chunk_bytes
    require(2**10 <= chunk_bytes <= 2**24, CORRUPT, f"chunk_bytes {chunk_bytes}")
    require(chunk_bytes & (chunk_bytes - 1) == 0, CORRUPT, f"chunk_bytes {chunk_bytes} is no power of two")
    return record


def parse_tensor_record(cursor):
    object_index, file_index, element_bits = cursor.u32(), cursor.u32(), cursor.u32()
    name_bytes, dtype_bytes, rank = cursor.u16(), cursor.u8(), cursor.u8()
    require(1 <= element_bits <= 65535, CORRUPT, f"element_bits {element_bits}")
    require(1 <= dtype_bytes <= 31, CORRUPT, f"dtype_bytes {dtype_bytes}")
    require(rank <= MAX_RANK, CORRUPT, f"rank {rank}")
    name, dtype = cursor.take(name_bytes), cursor.take(dtype_bytes)
    require(all(0x21 <= byte <= 0x7E for byte in dtype), CORRUPT, "dtype is not printable ASCII")
    return Tensor(object_index, file_index, element_bits, name, dtype, [cursor.u64() for _ in range(rank)])


def check_file_name(name):
    require(1 <= len(name) <= 4096, CORRUPT, f"file name of {len(name)} bytes")
    require(all(byte >= 0x20 and byte != 0x7F and byte != 0x5C for byte in name), CORRUPT, "forbidden byte in a file name")
    for component in name.split(b"/"):
        require(1 <= len(component) <= 255, CORRUPT, f"component of {len(component)} bytes in a file name")
        require(component not in (b".", b".."), CORRUPT, "component . or .. in a file name")


def parse_file_record(cursor):
    size, digest, part_count, name_bytes = cursor.u64(), cursor.take(32), cursor.u32(), cursor.u16()
    require(1 <= name_bytes <= 4096, CORRUPT, f"file name of {name_bytes} bytes")
    name = cursor.take(name_bytes)
    check_file_name(name)
    parts = struct.unpack(f"<{part_count}I", cursor.take(4 * part_count))
    return FileRecord(size, digest, name, parts)


def check_files(files, objects):
    names, used = set(), set()
    for record in files:
        require(record.name not in names, CORRUPT, f"two files named {show(record.name)}")
        names.add(record.name)
        size = 0
        for part in record.parts:
            require(part < len(objects), CORRUPT, f"file part {part} of {len(objects)} data objects")
            used.add(part)
            size += objects[part].decoded_bytes
        require(size == record.size, CORRUPT, f"{show(record.name)}: size {record.size}, the parts have {size}")
    require(len(used) == len(objects), CORRUPT, "a data object belongs to no file")
    folders = {name[:at] for name in names for at, byte in enumerate(name) if byte == 0x2F}
    require(not folders & names, CORRUPT, "a name is that of a file and of a folder")


def check_tensor_shape(tensor, decoded_bytes):
    known_bits = DTYPE_BITS.get(tensor.dtype)
    if known_bits is None:
        return  # plain bytes
    require(tensor.element_bits == known_bits, CORRUPT, f"{show(tensor.name)}: element_bits {tensor.element_bits}")
    bits = tensor.element_bits
    for dimension in tensor.shape:
        bits *= dimension
        require(bits < 1 << 64, CORRUPT, f"{show(tensor.name)}: a shape beyond 2^64 bits")
    require(bits == 8 * decoded_bytes, CORRUPT, f"{show(tensor.name)}: {bits} bits in {decoded_bytes} bytes")


def check_tensors(tensors, files, objects):
    part_sets = {}  # file -> its parts, made when a tensor asks
    seen = set()
    previous_file = 0
    for tensor in tensors:
        require(tensor.object_index < len(objects), CORRUPT, f"tensor of data object {tensor.object_index}")
        require(tensor.file_index < len(files), CORRUPT, f"tensor of file {tensor.file_index}")
        require(tensor.file_index >= previous_file, CORRUPT, "tensors are not in the order of their files")
        previous_file = tensor.file_index
        if tensor.file_index not in part_sets:
            part_sets[tensor.file_index] = frozenset(files[tensor.file_index].parts)
        require(tensor.object_index in part_sets[tensor.file_index], CORRUPT, f"{show(tensor.name)} is no part of its file")
        key = (tensor.file_index, tensor.name)
        require(key not in seen, CORRUPT, f"two tensors named {show(tensor.name)} in one file")
        seen.add(key)
        check_tensor_shape(tensor, objects[tensor.object_index].decoded_bytes)


def parse_manifest(manifest):
    """§6.1, §10 step 5."""
    cursor = Cursor(manifest, "the manifest")
    data_count, tensor_count, file_count = cursor.u32(), cursor.u32(), cursor.u32()
    require(data_count <= MAX_DATA_OBJECTS, LIMIT, f"{data_count} data objects")
    require(tensor_count <= MAX_TENSORS, LIMIT, f"{tensor_count} tensors")
    require(file_count <= MAX_FILES, LIMIT, f"{file_count} files")
    require(file_count >= 1, CORRUPT, "no files")
    smallest = 44 * data_count + (16 + 1) * tensor_count + (46 + 1) * file_count
    require(smallest <= cursor.remaining(), CORRUPT, "more records than the manifest has room for")
    objects = [parse_data_record(cursor) for _ in range(data_count)]
    tensors = [parse_tensor_record(cursor) for _ in range(tensor_count)]
    files = [parse_file_record(cursor) for _ in range(file_count)]
    cursor.finish()
    check_files(files, objects)
    check_tensors(tensors, files, objects)
    require(sum(record.size for record in files) < 1 << 64, LIMIT, "all files together are above 2^64 - 1 bytes")
    return objects, tensors, files


# -------------------------------------------------------------------------------------------------------------- §6.2 Layout


def parse_layout_record(cursor, chunk_count):
    layout = Layout(cursor.u8(), cursor.u8(), cursor.u8(), cursor.u8(), cursor.u8(), 0, 0)
    require(cursor.u8() == 0, CORRUPT, "reserved byte of a layout record")
    layout.palette_count, layout.table_count = cursor.u16(), cursor.u32()
    require(layout.palette_count <= layout.table_count, CORRUPT, f"{layout.palette_count} palettes")
    element_bytes = layout.element_bytes
    require(element_bytes in (0, 1, 2, 4, 8), CORRUPT, f"element_bytes {element_bytes}")
    if element_bytes == 0:
        unused = (layout.symbol_shift, layout.symbol_bits, layout.zero_bits, layout.segment_log2, layout.table_count)
        require(not any(unused), CORRUPT, "float fields of an object without float chunks")
        return layout
    require(1 <= layout.symbol_bits <= 8, CORRUPT, f"symbol_bits {layout.symbol_bits}")
    require(layout.symbol_shift + layout.symbol_bits <= 8 * element_bytes, CORRUPT, "the coded field leaves the element")
    require(layout.zero_bits <= layout.symbol_shift, CORRUPT, f"zero_bits {layout.zero_bits}")
    require(5 <= layout.segment_log2 <= 12, CORRUPT, f"segment_log2 {layout.segment_log2}")
    require(layout.table_count <= min(2 * chunk_count, MAX_TABLES_PER_OBJECT), CORRUPT, f"{layout.table_count} code tables")
    return layout


def parse_code_table(cursor):
    first, last = cursor.u8(), cursor.u8()
    require(first <= last, CORRUPT, "code table: last symbol below the first")
    symbol_count = last - first + 1
    nibbles = read_bit_numbers(cursor.take(ceil_div(symbol_count, 2)), 4, align(symbol_count, 2))
    require(not any(nibbles[symbol_count:]), CORRUPT, "code table: the unused nibble is not 0")
    lengths = {}
    for offset, length in enumerate(nibbles[:symbol_count]):
        require(length <= MAX_CODE_BITS, CORRUPT, f"code table: code word of {length} bits")
        if length > 0:
            lengths[first + offset] = length
    require(first in lengths and last in lengths, CORRUPT, "code table: first or last symbol without a code word")
    if len(lengths) == 1:
        require(lengths[first] == 1, CORRUPT, "code table: a single symbol has the length 1")
    else:
        total = sum(1 << (MAX_CODE_BITS - length) for length in lengths.values())
        require(total == 1 << MAX_CODE_BITS, CORRUPT, "code table: the code is not complete")
    return CodeTable(lengths)


def parse_palettes(cursor, layout):
    previous = -1
    for _ in range(layout.palette_count):
        table_index = cursor.u16()
        require(previous < table_index < layout.table_count, CORRUPT, f"palette of code table {table_index}")
        previous = table_index
        table = layout.tables[table_index]
        count = len(table.lengths)
        values = [cursor.number(layout.element_bytes) for _ in range(count)]
        require(list(table.lengths) == list(range(count)), CORRUPT, "palette: symbols have gaps")
        require(all(a < b for a, b in zip(values, values[1:])), CORRUPT, "palette: values do not ascend")
        table.palette = values


def check_chunk_tables(layout, form, table_index, step):
    """What chunks of elements must have: a code table, scaled ones with a palette, sparse ones another of masks, `step` behind it."""
    require(table_index < layout.table_count, CORRUPT, f"code table {table_index} of {layout.table_count}")
    table = layout.tables[table_index]
    last = max(table.lengths)
    fits = last < 1 << layout.symbol_bits or table.palette is not None
    require(fits, CORRUPT, f"code table: symbol {last} of {layout.symbol_bits} bits")
    require(form != FORM_SCALED or table.palette is not None, CORRUPT, "code table of a scaled chunk without a palette")
    if form != FORM_SPARSE:
        require(step == 0, CORRUPT, f"step {step} to a code table of masks in a chunk of form {form}")
        return
    require(step > 0, CORRUPT, "no code table of masks in a sparse chunk")
    require(table_index + step < layout.table_count, CORRUPT, f"code table {table_index + step} of {layout.table_count}")
    require(layout.tables[table_index + step].palette is None, CORRUPT, "code table of masks with a palette")


def parse_chunk_record(cursor, layout, decoded_bytes, position):
    stored_bytes, form, step, table_index, checksum = cursor.u32(), cursor.u8(), cursor.u8(), cursor.u16(), cursor.u64()
    require(1 <= stored_bytes <= decoded_bytes, CORRUPT, f"chunk of {decoded_bytes} bytes in {stored_bytes}")
    if form in (FORM_FLOAT, FORM_PLANES, FORM_SPARSE, FORM_SCALED):
        require(layout.element_bytes != 0, CORRUPT, f"form {form} in an object without elements")
        require(decoded_bytes % layout.element_bytes == 0, CORRUPT, f"form {form}: a broken number of elements")
    if form in (FORM_FLOAT, FORM_SPARSE, FORM_SCALED):
        check_chunk_tables(layout, form, table_index, step)
    elif form in (FORM_RAW, FORM_ZSTD, FORM_PLANES):
        require(table_index == step == 0, CORRUPT, f"code table {table_index}, step {step} for form {form}")
    if form == FORM_RAW:
        require(stored_bytes == decoded_bytes, CORRUPT, f"raw chunk of {decoded_bytes} bytes in {stored_bytes}")
    return Chunk(stored_bytes, form, table_index, table_index + step, checksum, decoded_bytes, position)


def parse_object_layout(cursor, data_object, position):
    """One object's part of the layout, and the positions of its chunks (§5). Returns the position after its last chunk."""
    chunk_count = ceil_div(data_object.decoded_bytes, data_object.chunk_bytes)
    layout = parse_layout_record(cursor, chunk_count)
    layout.tables = [parse_code_table(cursor) for _ in range(layout.table_count)]
    parse_palettes(cursor, layout)
    require(16 * chunk_count <= cursor.remaining(), CORRUPT, "more chunks than the layout has room for")
    data_object.layout = layout
    data_object.gap_start = position
    position = align(position, 4096 if data_object.decoded_bytes >= PAGE_ALIGNED_FROM else 16)
    data_object.start = position
    left = data_object.decoded_bytes
    for _ in range(chunk_count):
        chunk = parse_chunk_record(cursor, layout, min(left, data_object.chunk_bytes), position)
        data_object.chunks.append(chunk)
        left -= chunk.decoded_bytes
        position += align(chunk.stored_bytes, 16)
    return position


def parse_layout(data, objects, index_offset):
    """§6.2, §5, §10 step 6."""
    cursor = Cursor(data, "the layout")
    require(12 * len(objects) <= cursor.remaining(), CORRUPT, "more objects than the layout has room for")
    position = HEADER_BYTES
    table_count = 0
    for data_object in objects:
        position = parse_object_layout(cursor, data_object, position)
        table_count += data_object.layout.table_count
        require(table_count <= MAX_TABLES, LIMIT, "more than 2^20 code tables")
    cursor.finish()
    require(position == index_offset, CORRUPT, f"the payload ends at {position}, the index starts at {index_offset}")


def open_container(stream):
    """§10 steps 1 to 6: everything but the payload."""
    total_bytes = stream.seek(0, os.SEEK_END)
    header_checksum = read_header(stream, total_bytes)
    footer = read_footer(stream, total_bytes, header_checksum)
    index = read_index(stream, footer)
    manifest, layout = index[: footer.manifest_bytes], index[footer.manifest_bytes :]
    require(hashlib.sha256(manifest).digest() == footer.root, DAMAGED, "root digest")
    objects, tensors, files = parse_manifest(manifest)
    parse_layout(layout, objects, footer.index_offset)
    return Container(stream, total_bytes, footer.root, objects, tensors, files)


# --------------------------------------------------------------------------------------------------------- §9 the float form


def assign_code_words(lengths):
    """Canonical code words: symbol -> (code word, length). Ordered by length, then by value."""
    words = {}
    word, previous_length = 0, 0
    for symbol in sorted(lengths, key=lambda symbol: (lengths[symbol], symbol)):
        length = lengths[symbol]
        if words:
            word += 1
        word <<= length - previous_length
        words[symbol] = (word, length)
        previous_length = length
    return words


def build_lookup(lengths):
    """For the next MAX_CODE_BITS bits of the stream, the first of them in bit 0: (symbol, length of its code word)."""
    lookup = [None] * (1 << MAX_CODE_BITS)
    for symbol, (word, length) in assign_code_words(lengths).items():
        # A code word enters the stream most significant bit first, and bit 0 is the stream's first: so it is mirrored.
        mirrored = int(format(word, f"0{length}b")[::-1], 2)
        for upper in range(1 << (MAX_CODE_BITS - length)):
            lookup[mirrored | upper << length] = (symbol, length)
    return lookup


def decode_half(stream, lookup, bit, symbol_count):
    """symbol_count symbols from bit on, and the bit where they end; zeros follow the stream."""
    padded = stream + bytes(ceil_div(symbol_count * MAX_CODE_BITS, 8) + 3)
    symbols, mask = [], (1 << MAX_CODE_BITS) - 1
    for _ in range(symbol_count):
        at = bit >> 3
        window = padded[at] | padded[at + 1] << 8 | padded[at + 2] << 16
        symbol, length = lookup[window >> (bit & 7) & mask]
        symbols.append(symbol)
        bit += length
    return symbols, bit


def mirror_stream(stream):
    """The same bits from the last one to the first."""
    return bytes(int(format(byte, "08b")[::-1], 2) for byte in reversed(stream))


def decode_symbols(stream, table, symbol_count, segment_symbols, segment_bits, unused_bits=0):
    """The code words: symbol_count symbols; segment_bits has the length of every segment but the last."""
    require(unused_bits <= (7 if stream else 0), CORRUPT, f"float chunk: {unused_bits} unused bits")
    stream_bits = 8 * len(stream) - unused_bits
    require(unused_bits == 0 or stream[-1] >> (8 - unused_bits) == 0, CORRUPT, "float chunk: unused bits are not zero")
    if len(table.lengths) == 1:
        require(not any(segment_bits), CORRUPT, "float chunk: a segment of a single symbol takes bits")
        require(len(stream) == 0, CORRUPT, "float chunk: a stream for a single symbol")
        return list(table.lengths) * symbol_count
    if table.lookup is None:
        table.lookup = build_lookup(table.lengths)
    mirror, symbols, start = mirror_stream(stream), [], 0
    for segment in range(ceil_div(symbol_count, segment_symbols)):
        end = start + segment_bits[segment] if segment < len(segment_bits) else stream_bits
        require(end <= stream_bits, CORRUPT, f"float chunk: segment {segment} ends after the stream")
        count = min(segment_symbols, symbol_count - segment * segment_symbols)
        first_count = min(count, segment_symbols // 2)
        first, first_end = decode_half(stream, table.lookup, start, first_count)
        second, second_end = decode_half(mirror, table.lookup, 8 * len(stream) - end, count - first_count)
        require(first_end == 8 * len(stream) - second_end, CORRUPT, f"float chunk: halves of segment {segment} do not meet")
        symbols += first + second
        start = end
    return symbols


def decode_remainders(cursor, count, remainder_bits):
    """Byte planes, then the bits above them."""
    remainders = [0] * count
    for plane in range(remainder_bits // 8):
        remainders = [value | byte << 8 * plane for value, byte in zip(remainders, cursor.take(count))]
    top_bits = remainder_bits % 8
    packed = cursor.take(ceil_div(count * top_bits, 8))
    if top_bits > 0:
        top = read_bit_numbers(packed, top_bits, count)
        remainders = [value | bits << (remainder_bits - top_bits) for value, bits in zip(remainders, top)]
    return remainders


def decode_segment_bits(cursor, segment_count):
    """The length in bits of every segment but the last, and the number of unused bits at the end of the stream."""
    base, width, unused_bits = cursor.u16(), cursor.u8(), cursor.u8()
    require(width <= 16, CORRUPT, f"float chunk: width {width}")
    packed = cursor.take(ceil_div((segment_count - 1) * width, 8))
    return [base + more for more in read_bit_numbers(packed, width, segment_count - 1)], unused_bits


def join_elements(symbols, remainders, layout):
    shift, symbol_bits = layout.symbol_shift, layout.symbol_bits
    low_mask = (1 << shift) - 1
    elements = []
    for symbol, remainder in zip(symbols, remainders):
        rest = remainder << layout.zero_bits
        elements.append(rest >> shift << (shift + symbol_bits) | symbol << shift | rest & low_mask)
    return pack_elements(elements, layout.element_bytes)


def pack_elements(elements, element_bytes):
    return struct.pack("<%d%s" % (len(elements), {1: "B", 2: "H", 4: "I", 8: "Q"}[element_bytes]), *elements)


def decode_float(stored, decoded_bytes, layout, table):
    count = decoded_bytes // layout.element_bytes
    remainder_bits = 8 * layout.element_bytes - layout.symbol_bits - layout.zero_bits
    if table.palette is not None:
        remainder_bits = 0
    segment_symbols = 1 << layout.segment_log2
    cursor = Cursor(stored, "a float chunk")
    remainders = decode_remainders(cursor, count, remainder_bits)
    segment_bits, unused_bits = decode_segment_bits(cursor, ceil_div(count, segment_symbols))
    stream = cursor.take(cursor.remaining())
    symbols = decode_symbols(stream, table, count, segment_symbols, segment_bits, unused_bits)
    if table.palette is not None:
        return pack_elements([table.palette[symbol] for symbol in symbols], layout.element_bytes)
    return join_elements(symbols, remainders, layout)


# ------------------------------------------------------------------------------------- §5, §8, §10 steps 7 to 9: the payload


def decode_planes(stored, decoded_bytes, element_bytes):
    """§12, form 3."""
    planes, start = [], 0
    for plane in range(element_bytes):
        end = len(stored) if plane + 1 == element_bytes else start + zstd_frame_bytes(stored[start:])
        planes.append(decode_zstd(stored[start:end], decoded_bytes // element_bytes))
        start = end
    return bytes(byte for element in zip(*planes) for byte in element)


def read_flags(packed, count, what):
    """count bits; those behind them are 0."""
    bits = read_bit_numbers(packed, 1, 8 * len(packed))
    require(not any(bits[count:]), CORRUPT, f"sparse chunk: {what} beyond the last one")
    return bits[:count]


def decode_masks(stored, symbol_count, element_count, segment_log2, table):
    """A bit for each element: from masks, or from masks of masks and those masks that are not left out."""
    layout = Layout(1, 0, 8, 0, max(segment_log2 - 2, 5), 0, 1)
    symbols = decode_float(stored, symbol_count, layout, table)
    mask_count = ceil_div(element_count, 8)
    if symbol_count != mask_count:
        upper_count = ceil_div(mask_count, 8)
        upper, rest = read_flags(symbols[:upper_count], mask_count, "masks"), iter(symbols[upper_count:])
        require(upper_count + sum(upper) == symbol_count, CORRUPT, "sparse chunk: number of masks")
        symbols = bytes(next(rest) if bit else 0 for bit in upper)
    return read_flags(symbols, element_count, "elements")


def decode_sparse(stored, decoded_bytes, layout, table, mask_table):
    """§12, form 4."""
    count, size = decoded_bytes // layout.element_bytes, layout.element_bytes
    cursor = Cursor(stored, "a sparse chunk")
    float_bytes, sign_bytes, symbol_count, present_count = cursor.u32(), cursor.u32(), cursor.u32(), cursor.u32()
    mask_count = ceil_div(count, 8)
    require(0 < present_count < count, CORRUPT, "sparse chunk: all elements or none are present")
    require(sign_bytes in (0, ceil_div(count - present_count, 8)), CORRUPT, f"sparse chunk: {sign_bytes} bytes of signs")
    is_known = symbol_count == mask_count or ceil_div(mask_count, 8) < symbol_count < mask_count
    require(is_known, CORRUPT, f"sparse chunk: {symbol_count} symbols of {mask_count} masks")
    elements = decode_float(cursor.take(float_bytes), present_count * size, layout, table)
    signs = read_flags(cursor.take(sign_bytes), count - present_count, "signs") if sign_bytes else [0] * (count - present_count)
    present = decode_masks(cursor.take(cursor.remaining()), symbol_count, count, layout.segment_log2, mask_table)
    require(sum(present) == present_count, CORRUPT, "sparse chunk: number of present elements")
    pieces, at, signs_left = [], 0, iter(signs)
    for bit in present:
        pieces.append(elements[at : at + size] if bit else bytes(size - 1) + bytes([next(signs_left) << 7]))
        at += size * bit
    return b"".join(pieces)


def round_to(code, value):
    """A number rounded to binary32 ("<f") or binary16 ("<e"), as bytes."""
    try:
        return struct.pack(code, value)
    except OverflowError:
        return struct.pack(code, math.copysign(math.inf, value))


def multiply(level, scale, element_type):
    """§12, form 5: one element."""
    if element_type == SCALED_BF16:
        (number,) = struct.unpack("<f", b"\0\0" + level)
    else:
        (number,) = struct.unpack("<f" if element_type == SCALED_F32 else "<e", level)
    if not math.isfinite(number):
        return level
    product = round_to("<f", number * scale)  # exact in binary64 before it is rounded
    if element_type == SCALED_F32:
        return product
    if element_type == SCALED_F16:
        return round_to("<e", struct.unpack("<f", product)[0])
    (bits,) = struct.unpack("<I", product)
    return struct.pack("<H", bits + 0x7FFF + (bits >> 16 & 1) >> 16)


def decode_scaled(stored, decoded_bytes, layout, table):
    """§12, form 5."""
    count, size = decoded_bytes // layout.element_bytes, layout.element_bytes
    cursor = Cursor(stored, "a scaled chunk")
    float_bytes, element_type, scale_type, group_log2 = cursor.u32(), cursor.u8(), cursor.u8(), cursor.u8()
    require(is_zero(cursor.take(9)), CORRUPT, "scaled chunk: reserved bytes")
    types = {2: (SCALED_BF16, SCALED_F16), 4: (SCALED_F32,)}
    require(element_type in types.get(size, ()), CORRUPT, f"scaled chunk: type {element_type} of elements of {size} bytes")
    require(scale_type <= 1, CORRUPT, f"scaled chunk: type {scale_type} of scales")
    require(5 <= group_log2 <= 15, CORRUPT, f"scaled chunk: groups of 2^{group_log2}")
    levels = decode_float(cursor.take(float_bytes), decoded_bytes, layout, table)
    code, scale_bytes = ("<e", 2) if scale_type else ("<f", 4)
    scales = [struct.unpack(code, cursor.take(scale_bytes))[0] for _ in range(ceil_div(count, 1 << group_log2))]
    require(cursor.remaining() == 0, CORRUPT, "scaled chunk: bytes behind the scales")
    good = all(math.isfinite(scale) and math.copysign(1, scale) > 0 for scale in scales)
    require(good, CORRUPT, "scaled chunk: a scale that is negative or not finite")
    levels = [levels[at : at + size] for at in range(0, decoded_bytes, size)]
    return b"".join(multiply(level, scales[i >> group_log2], element_type) for i, level in enumerate(levels))


def decode_chunk(container, layout, chunk):
    """§10 step 7."""
    padded = read_at(container.stream, chunk.position, align(chunk.stored_bytes, 16))
    require(xxh3(padded) == chunk.checksum, DAMAGED, f"checksum of the chunk at {chunk.position}")
    stored = padded[: chunk.stored_bytes]
    require(is_zero(padded[chunk.stored_bytes :]), CORRUPT, f"padding of the chunk at {chunk.position} is not zero")
    if chunk.form == FORM_RAW:
        return stored
    if chunk.form == FORM_ZSTD:
        return decode_zstd(stored, chunk.decoded_bytes)
    if chunk.form == FORM_PLANES:
        return decode_planes(stored, chunk.decoded_bytes, layout.element_bytes)
    if chunk.form == FORM_FLOAT:
        return decode_float(stored, chunk.decoded_bytes, layout, layout.tables[chunk.table_index])
    if chunk.form == FORM_SPARSE:
        tables = layout.tables[chunk.table_index], layout.tables[chunk.mask_table_index]
        return decode_sparse(stored, chunk.decoded_bytes, layout, *tables)
    if chunk.form == FORM_SCALED:
        return decode_scaled(stored, chunk.decoded_bytes, layout, layout.tables[chunk.table_index])
    raise Rejected(UNSUPPORTED, f"form {chunk.form} of the chunk at {chunk.position}")


def decode_object(container, object_index):
    """Yields the decoded chunks; complains about the root after the last (§8, §10 step 8)."""
    data_object = container.objects[object_index]
    root = hashlib.sha256(b"cllm data root\0\0" + struct.pack("<QQ", data_object.decoded_bytes, data_object.chunk_bytes))
    for chunk in data_object.chunks:
        decoded = decode_chunk(container, data_object.layout, chunk)
        root.update(hashlib.sha256(decoded).digest())
        yield decoded
    require(root.digest() == data_object.root, DAMAGED, f"root digest of data object {object_index}")


def check_gaps(container):
    """§5: bytes that belong to no chunk are zero. (Padding within chunks: decode_chunk.)"""
    for data_object in container.objects:
        gap = read_at(container.stream, data_object.gap_start, data_object.start - data_object.gap_start)
        require(is_zero(gap), CORRUPT, f"bytes before {data_object.start} belong to no chunk and are not zero")


def decode_file(container, record, write):
    """§10 step 9. What was written counts only if this returns."""
    digest, size = hashlib.sha256(), 0
    for part in record.parts:
        for decoded in decode_object(container, part):
            digest.update(decoded)
            size += len(decoded)
            write(decoded)
    require(size == record.size, DAMAGED, f"size of {show(record.name)}")
    require(digest.digest() == record.sha256, DAMAGED, f"SHA-256 of {show(record.name)}")


def verify_container(container):
    check_gaps(container)
    for record in container.files:  # every data object is a part of a file, so this decodes them all
        decode_file(container, record, lambda decoded: None)


# ----------------------------------------------------------------------------------------------------- §14 writing the files


def open_parent(directory, components):
    """A descriptor of the directory to write into, made where it is missing; follows no symbolic link below directory."""
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for component in components:
        try:
            os.mkdir(component, dir_fd=parent)
        except FileExistsError:
            pass
        child = os.open(component, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        os.close(parent)
        parent = child
    return parent


def restore_file(container, record, directory):
    *directories, base = record.name.split(b"/")
    parent = open_parent(directory, directories)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(base, flags, 0o666, dir_fd=parent), "wb") as output:
            try:
                decode_file(container, record, output.write)
            except BaseException:
                os.unlink(base, dir_fd=parent)
                raise
    finally:
        os.close(parent)


# ------------------------------------------------------------------------------------------------------------- command line


def show(name):
    """Names are untrusted: what is not plain text is escaped."""
    text = name.decode("utf-8", "backslashreplace").replace("\\", "\\\\")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def list_container(container):
    print(f"root digest {container.root.hex()}, {container.total_bytes} bytes")
    for record in container.files:
        print(f"file {show(record.name)}: {record.size} bytes, {len(record.parts)} parts, sha256 {record.sha256.hex()}")
    for tensor in container.tensors:
        data_object = container.objects[tensor.object_index]
        stored = sum(chunk.stored_bytes for chunk in data_object.chunks)
        forms = sorted({chunk.form for chunk in data_object.chunks})
        print(
            f"tensor {show(tensor.name)}: {show(tensor.dtype)} {tensor.shape} of file {tensor.file_index}, "
            f"{data_object.decoded_bytes} bytes in {stored}, {len(data_object.chunks)} chunks, forms {forms}"
        )


def with_container(path, action):
    """Runs action on the opened container; returns the error to report, or None."""
    try:
        with open(path, "rb") as stream:
            action(open_container(stream))
    except Rejected as error:
        return str(error)
    except OSError as error:
        return f"(i/o): {error}"
    return None


def run_list(path):
    error = with_container(path, list_container)
    if error:
        print(f"{path}: FAILED {error}", file=sys.stderr)
    return 1 if error else 0


def run_verify(paths):
    failed = False
    for path in paths:
        error = with_container(path, verify_container)
        print(f"{path}: FAILED {error}" if error else f"{path}: OK", flush=True)
        failed = failed or error is not None
    return 1 if failed else 0


def run_restore(path, directory):
    def restore_all(container):
        os.makedirs(directory, exist_ok=True)
        check_gaps(container)
        for record in container.files:
            restore_file(container, record, directory)

    error = with_container(path, restore_all)
    if error:
        print(f"{path}: FAILED {error}", file=sys.stderr)
    return 1 if error else 0


# ----------------------------------------------------------------------------------------------------------------- selftest


def rejected_as(kind, function, *arguments):
    try:
        function(*arguments)
    except Rejected as error:
        return error.kind == kind
    return False


def run_selftest():
    """The examples that FORMAT.md gives in bytes, and what follows directly from its sentences."""
    a, b, c, d = b"abcd"
    table = parse_code_table(Cursor(b"ad\x21\x33", "example"))
    stream = b"\x39"  # b a d
    bf16 = Layout(2, 7, 8, 0, 7, 0, 1)
    f64 = Layout(8, 52, 8, 0, 7, 0, 1)
    cases = {
        "code_table_gives_lengths": table.lengths == {a: 1, b: 2, c: 3, d: 3},
        "code_words_are_canonical": assign_code_words(table.lengths) == {a: (0, 1), b: (2, 2), c: (6, 3), d: (7, 3)},
        "stream_39_is_b_a_d": decode_symbols(stream, table, 3, 128, [], 2) == [b, a, d],
        "second_half_runs_from_the_end": decode_symbols(b"\x11", table, 3, 4, [], 3) == [b, a, b],
        "segments_may_end_within_a_byte": decode_symbols(b"\x39", table, 3, 2, [3], 2) == [b, a, d],
        "halves_that_do_not_meet_are_corrupt": rejected_as(CORRUPT, decode_symbols, stream, table, 3, 2, [4], 2),
        "wrong_number_of_unused_bits_is_corrupt": rejected_as(CORRUPT, decode_symbols, stream, table, 3, 128, [], 1),
        "unused_bits_set_are_corrupt": rejected_as(CORRUPT, decode_symbols, b"\xb9", table, 3, 128, [], 2),
        "byte_after_stream_is_corrupt": rejected_as(CORRUPT, decode_symbols, b"\x39\x00", table, 3, 128, [], 2),
        "stream_cut_short_is_corrupt": rejected_as(CORRUPT, decode_symbols, stream, table, 9, 128, [], 2),
        "unused_nibble_is_zero": rejected_as(CORRUPT, parse_code_table, Cursor(b"ac\x21\x12", "example")),
        "incomplete_code_is_corrupt": rejected_as(CORRUPT, parse_code_table, Cursor(b"ad\x21\x43", "example")),
        "single_symbol_takes_no_bits": decode_symbols(b"", CodeTable({b: 1}), 3, 2, [0]) == [b, b, b],
        "bf16_joins_sign_exponent_mantissa": join_elements([0x7F], [0xC0], bf16) == struct.pack("<H", 0xBFC0),
        "f64_symbol_is_the_low_exponent": join_elements([0xFF], [3 << 52], f64) == struct.pack("<d", 1.0),
        "bit_numbers_start_at_bit_0": read_bit_numbers(b"\x39\x01", 3, 3) == [1, 7, 4],
    }
    for name, passed in cases.items():
        print(f"{'ok' if passed else 'not ok'} {name}")
    return 0 if all(cases.values()) else 1


def main(arguments):
    match arguments:
        case ["list", path]:
            return run_list(path)
        case ["verify", path, *more]:
            return run_verify([path, *more])
        case ["restore", path, directory]:
            return run_restore(path, directory)
        case ["selftest"]:
            return run_selftest()
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
