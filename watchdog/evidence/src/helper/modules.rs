//! Modules: what is mapped where in the worker, and the unwind tables of the files among it.
//!
//! The files are held as soon as the map is read, while the helper may still look at them, and opened when
//! it has become the worker's user: only regular files, never by a name that could mean another by then.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use framehop::{ExplicitModuleSectionInfo, Module};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Object, ObjectSection, ReadCache, ReadRef};
use rustix::fs::{FileType, Mode, OFlags};

use super::maps::{Mapped, Maps};
use super::target::Target;
use super::teller::Why;
use hangwatch_files::beneath;

/// The unwind tables that are read of all files together, bytes; a helper with little memory reads fewer.
const TABLES_BYTES: u64 = 256 << 20;
/// Files that are held at most.
const FILES: usize = 512;
/// The largest vDSO that is read, bytes.
const VDSO_BYTES: u64 = 256 << 10;
/// What a mapping's name ends in whose file has no name any more.
const DELETED: &str = " (deleted)";

/// Everything that is mapped, by address.
pub(super) struct Modules {
    mappings: Vec<Mapping>,
    vdso: Vec<u8>,
    /// The worker's root directory.
    root: Option<OwnedFd>,
    left_out: Option<Why>,
    /// How much of [`TABLES_BYTES`] is left.
    table_bytes: AtomicU64,
}

impl Default for Modules {
    fn default() -> Modules {
        let (mappings, vdso, table_bytes) = (Vec::new(), Vec::new(), AtomicU64::new(TABLES_BYTES));
        Modules { mappings, vdso, root: None, left_out: None, table_bytes }
    }
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
    /// The file itself, held and not opened.
    file: Option<Arc<OwnedFd>>,
}

impl Modules {
    /// The mappings of the worker, with the files of those that are code; `memory` is what the helper may
    /// take.
    pub(super) fn of(target: &Target, memory_bytes: u64) -> Result<Modules, Why> {
        let maps = Maps::of(target)?;
        let mut left_out = maps.left_out();
        let mut files = Files::of(target);
        let mappings: Vec<Mapping> =
            maps.mappings.into_iter().map(|mapped| Mapping::new(mapped, &mut files)).collect();
        let vdso = mappings.iter().find(|mapping| mapping.is_vdso).map(|mapping| &mapping.range);
        let vdso = vdso.filter(|range| range.end - range.start <= VDSO_BYTES);
        let vdso = vdso.and_then(|range| read_memory(target, range.clone())).unwrap_or_default();
        if files.is_full {
            left_out = left_out.or(Some(format!(
                "it maps code of more than {FILES} files: those beyond were left out"
            )));
        }
        let table_bytes = AtomicU64::new(TABLES_BYTES.min(memory_bytes / 4));
        Ok(Modules { mappings, vdso, root: files.root, left_out, table_bytes })
    }

    /// What was left out, if anything.
    pub(super) fn left_out(&self) -> Option<Why> {
        self.left_out.clone()
    }

    /// The files of all code that are held or not, by their names.
    pub(super) fn code_paths(&self) -> impl Iterator<Item = &Path> {
        let code = self.mappings.iter().filter(|mapping| mapping.is_code);
        code.filter_map(|mapping| mapping.path.as_deref())
    }

    /// An interpreter's library whose name leads to no regular file.
    pub(super) fn replaced_library(&self) -> Option<&Path> {
        let is_it = |path: &Path| {
            let root = self.root.as_ref().map(AsFd::as_fd);
            let found = root.and_then(|root| beneath::handle(root, path).ok());
            found.as_ref().is_some_and(is_regular)
        };
        let is_library = |path: &&Path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libpython"))
        };
        self.code_paths().filter(is_library).find(|path| !is_it(path))
    }

    /// The worker's root directory, held.
    pub(super) fn root(&self) -> Option<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd)
    }

    /// The bytes of the vDSO, by an address in it.
    pub(super) fn vdso(&self, address: u64) -> Option<&[u8]> {
        self.find(address).filter(|mapping| mapping.is_vdso).map(|_| self.vdso.as_slice())
    }

    /// The mapping that an address lies in.
    pub(super) fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|mapping| mapping.range.start <= address);
        let mapping = self.mappings.get(after.checked_sub(1)?)?;
        mapping.range.contains(&address).then_some(mapping)
    }

    /// The code of the file whose variables lie at an address: the file's last variables are in memory of no
    /// file, right behind it.
    pub(super) fn of_data(&self, address: u64) -> Option<&Mapping> {
        let own = self.find(address)?;
        let mut before = own.range.start;
        let below = self.mappings.iter().rev().skip_while(|it| it.range.start > own.range.start);
        for mapping in below {
            let is_next = mapping.range.start == before || mapping.range.end == before;
            if !is_next || mapping.range.start != own.range.start && mapping.path.is_none() {
                return None;
            }
            if mapping.is_code {
                return Some(mapping);
            }
            before = mapping.range.start;
        }
        None
    }

    /// Whether an address may be one of code.
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.find(address).is_some_and(|mapping| mapping.is_code)
    }

    /// The unwind tables of what is mapped at an address; `None` where it has none that can be read.
    pub(super) fn tables(&self, address: u64) -> Option<Module<Vec<u8>>> {
        let mapping = self.find(address)?;
        if mapping.is_vdso {
            return mapping.tables(mapping.range.clone(), self.vdso.as_slice(), &self.table_bytes);
        }
        let file = mapping.open()?;
        mapping.tables(self.whole(mapping), &ReadCache::new(file), &self.table_bytes)
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

/// Finds the files of mappings, each once.
struct Files {
    /// The worker's root directory.
    root: Option<OwnedFd>,
    pid: u32,
    known: HashMap<(String, u64), Option<Arc<OwnedFd>>>,
    is_full: bool,
}

impl Files {
    fn of(target: &Target) -> Files {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{}/root", target.tid), flags, Mode::empty());
        Files { root: root.ok(), pid: target.pid, known: HashMap::new(), is_full: false }
    }

    /// The file of a mapping: what the kernel has mapped, or, where only root may have that, what has its
    /// name now. A handle, which opens nothing.
    fn find(&mut self, mapped: &Mapped) -> Option<Arc<OwnedFd>> {
        let key = (mapped.device.clone(), mapped.inode);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        self.is_full |= self.known.len() >= FILES;
        if self.is_full {
            return None;
        }
        let Range { start, end } = mapped.range;
        let link = format!("/proc/{}/map_files/{start:x}-{end:x}", self.pid);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let by_kernel = rustix::fs::open(link, flags, Mode::empty()).ok();
        let found = by_kernel.or_else(|| self.by_name(mapped)).filter(is_regular).map(Arc::new);
        self.known.insert(key, found.clone());
        found
    }

    fn by_name(&self, mapped: &Mapped) -> Option<OwnedFd> {
        let path = mapped.path()?;
        // The kernel says so of a file without a name: whoever has that name is another.
        if path.to_string_lossy().ends_with(DELETED) {
            return None;
        }
        beneath::handle(self.root.as_ref()?.as_fd(), &path).ok()
    }
}

fn is_regular(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| beneath::file_type(&stat) == FileType::RegularFile)
}

impl Mapping {
    fn new(mapped: Mapped, files: &mut Files) -> Mapping {
        let is_vdso = mapped.name == b"[vdso]";
        let path = if is_vdso { Some("[vdso]".into()) } else { mapped.path() };
        let is_file = mapped.is_code && !is_vdso && mapped.inode != 0 && path.is_some();
        Mapping {
            file: is_file.then(|| files.find(&mapped)).flatten(),
            range: mapped.range,
            offset: mapped.offset,
            is_code: mapped.is_code,
            path,
            is_vdso,
            inode: mapped.inode,
        }
    }
}

impl Mapping {
    /// Where an address lies in the file.
    pub(super) fn file_offset(&self, address: u64) -> u64 {
        address - self.range.start + self.offset
    }

    /// Opens the file itself.
    pub(super) fn open(&self) -> Option<File> {
        Some(beneath::readable(self.file.as_ref()?.as_fd()).ok()?.0)
    }

    fn tables<'d>(
        &self,
        range: Range<u64>,
        data: impl ReadRef<'d>,
        table_bytes: &AtomicU64,
    ) -> Option<Module<Vec<u8>>> {
        let elf = ElfFile64::<object::Endianness, _>::parse(data).ok()?;
        let base = self.base(&elf)?;
        let section = |name: &str| elf.section_by_name(name);
        let place = |name: &str| {
            section(name)
                .map(|section| section.address()..section.address().saturating_add(section.size()))
        };
        let bytes = |name: &str| {
            // Relaxed: a count, which orders nothing else.
            let left = table_bytes.load(Ordering::Relaxed);
            let section = section(name).filter(|section| section.size() <= left)?;
            table_bytes.store(left - section.size(), Ordering::Relaxed);
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

    /// Where the file's own address 0 is in memory.
    pub(super) fn base<'d, R: ReadRef<'d>>(
        &self,
        elf: &ElfFile64<'d, object::Endianness, R>,
    ) -> Option<u64> {
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
        Some(at(self.range.start, self.offset).wrapping_sub(moved))
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
