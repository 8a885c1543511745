//! Modules: what is mapped where in the worker, and the unwind tables of the files among it.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;

use framehop::{ExplicitModuleSectionInfo, Module};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Object, ObjectSection, ReadCache, ReadRef};
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use super::target::Target;
use super::teller::Why;

/// The largest unwind table that is read, bytes.
const TABLE_BYTES: u64 = 256 << 20;

/// Everything that is mapped, by address.
#[derive(Default)]
pub(super) struct Modules {
    mappings: Vec<Mapping>,
}

/// What mappings begin at multiples of, in memory and in files, or a divisor of it.
const PAGE_BYTES: u64 = 4096;

/// One mapping.
pub(super) struct Mapping {
    pub(super) range: Range<u64>,
    offset: u64,
    is_code: bool,
    /// Where its bytes come from; `None` where from no file.
    pub(super) path: Option<PathBuf>,
    is_vdso: bool,
    inode: u64,
}

impl Modules {
    /// The mappings of the worker.
    pub(super) fn of(target: &Target) -> Result<Modules, Why> {
        let mut mappings: Vec<Mapping> = target.maps()?.into_iter().map(Mapping::from).collect();
        mappings.sort_unstable_by_key(|mapping| mapping.range.start);
        Ok(Modules { mappings })
    }

    /// The mapping that an address lies in.
    pub(super) fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|mapping| mapping.range.start <= address);
        let mapping = self.mappings.get(after.checked_sub(1)?)?;
        mapping.range.contains(&address).then_some(mapping)
    }

    /// Whether an address may be one of code.
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.find(address).is_some_and(|mapping| mapping.is_code)
    }

    /// The unwind tables of what is mapped at an address; `None` where it has none that can be read.
    pub(super) fn tables(&self, target: &Target, address: u64) -> Option<Module<Vec<u8>>> {
        let mapping = self.find(address)?;
        if mapping.is_vdso {
            let bytes = read_memory(target, mapping.range.clone())?;
            return mapping.tables(mapping.range.clone(), bytes.as_slice());
        }
        let file = mapping.open(target)?;
        mapping.tables(self.whole(mapping), &ReadCache::new(file))
    }

    /// From the first to the last mapping of the same file around this one.
    fn whole(&self, mapping: &Mapping) -> Range<u64> {
        let same = |other: &&Mapping| other.inode == mapping.inode && other.path == mapping.path;
        let ranges = || self.mappings.iter().filter(same).map(|other| &other.range);
        let start = ranges().map(|range| range.start).min();
        let end = ranges().map(|range| range.end).max();
        start.unwrap_or(mapping.range.start)..end.unwrap_or(mapping.range.end)
    }
}

impl From<MemoryMap> for Mapping {
    fn from(map: MemoryMap) -> Mapping {
        let is_vdso = map.pathname == MMapPath::Vdso;
        let path = match map.pathname {
            MMapPath::Path(path) => Some(path),
            MMapPath::Vdso => Some("[vdso]".into()),
            _ => None,
        };
        Mapping {
            range: map.address.0..map.address.1,
            offset: map.offset,
            is_code: map.perms.contains(MMPermissions::EXECUTE),
            path,
            is_vdso,
            inode: map.inode,
        }
    }
}

impl Mapping {
    /// Where an address lies in the file.
    pub(super) fn file_offset(&self, address: u64) -> u64 {
        address - self.range.start + self.offset
    }

    /// The file itself: by what the kernel has mapped, or, where only root may have that, by its name.
    fn open(&self, target: &Target) -> Option<File> {
        let Range { start, end } = self.range;
        let path = self.path.as_ref()?;
        let (pid, tid) = (target.pid, target.tid);
        let in_its_root = format!("/proc/{tid}/root{}", path.display());
        let mapped = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
        [mapped, in_its_root].into_iter().find_map(|path| {
            let file = File::open(path).ok()?;
            file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
        })
    }

    fn tables<'d>(&self, range: Range<u64>, data: impl ReadRef<'d>) -> Option<Module<Vec<u8>>> {
        let elf = ElfFile64::<object::Endianness, _>::parse(data).ok()?;
        let endian = elf.endian();
        // The segment of this code: others may have bytes in the page it begins in.
        let segment = elf.elf_program_headers().iter().find(|segment| {
            let begins = segment.p_offset(endian);
            let ends = begins.saturating_add(segment.p_filesz(endian));
            segment.p_type(endian) == object::elf::PT_LOAD
                && (segment.p_flags(endian) & object::elf::PF_X).0 != 0
                && (begins - begins % PAGE_BYTES..ends).contains(&self.offset)
        })?;
        let at = |address: u64, offset: u64| address.wrapping_sub(offset);
        let moved = at(segment.p_vaddr(endian), segment.p_offset(endian));
        let base = at(self.range.start, self.offset).wrapping_sub(moved);
        let section = |name: &str| elf.section_by_name(name);
        let place = |name: &str| {
            section(name).map(|section| section.address()..section.address() + section.size())
        };
        let bytes = |name: &str| {
            let section = section(name).filter(|section| section.size() <= TABLE_BYTES)?;
            section.data().ok().map(<[u8]>::to_vec)
        };
        let tables = ExplicitModuleSectionInfo {
            text_svma: place(".text"),
            got_svma: place(".got"),
            eh_frame_svma: place(".eh_frame"),
            eh_frame: bytes(".eh_frame"),
            eh_frame_hdr_svma: place(".eh_frame_hdr"),
            eh_frame_hdr: bytes(".eh_frame_hdr"),
            debug_frame: bytes(".debug_frame"),
            ..ExplicitModuleSectionInfo::default()
        };
        let name = self.path.as_ref()?.to_string_lossy().into_owned();
        Some(Module::new(name, range, base, tables))
    }
}

/// Some of the worker's memory; less than asked for where not all of it is there.
pub(super) fn read_memory(target: &Target, range: Range<u64>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
    let remote = RemoteIoVec { base: usize::try_from(range.start).ok()?, len: bytes.len() };
    let mut local = [std::io::IoSliceMut::new(&mut bytes)];
    let pid = Pid::from_raw(target.tid.cast_signed());
    let read = process_vm_readv(pid, &mut local, &[remote]).ok()?;
    bytes.truncate(read);
    Some(bytes)
}
