//! Names: addresses made into functions, files and lines by `blazesym`, where the files have symbols.
//!
//! It is given the files that are held, by their descriptors, and looks for none by a name that the worker
//! chose. What the worker's runtime has compiled is named by its perf map ([`perf_map`](super::perf_map)).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};
use object::read::elf::ElfFile64;
use object::{Object, ReadCache};
use rustix::fs::MemfdFlags;

use super::modules::Modules;
use super::native::{NativeFrame, Stack};
use super::perf_map::PerfMap;
use super::target::Target;
use crate::piece::Piece;
use hangwatch_incident::schema::{Frame, Missing};

/// The files that name addresses, by their names in the worker; `None` for one that cannot be had.
type Files = BTreeMap<String, Option<Named>>;

/// A file that names addresses.
struct Named {
    file: File,
    /// Whether its debug information may be searched: it points to no file by a path.
    has_safe_links: bool,
}

/// Tells each stack once more, with names, and then with lines, which may take much longer to find.
pub(super) fn name(
    target: &Target,
    modules: &Modules,
    stacks: &[Stack],
    tell: &mut dyn FnMut(Piece),
) {
    let symbolizer = Symbolizer::builder().enable_demangling(false).build();
    let mut files = Files::new();
    for frame in stacks.iter().flat_map(|stack| &stack.frames) {
        if let Some(module) = &frame.module {
            files.entry(module.clone()).or_insert_with(|| open(modules, frame.address));
        }
    }
    let jit = PerfMap::of(target, modules, stacks);
    let mut malformed = BTreeMap::new();
    for debug_syms in [false, true] {
        for stack in stacks {
            let symbols = symbols(&symbolizer, &files, stack, debug_syms, &mut malformed);
            let frames = stack.told(|frame, place| match jit.name(frame.address) {
                Some(function) => vec![Frame { function, ..frame.unnamed() }],
                None => named(frame, symbols.get(place).and_then(Option::as_ref)),
            });
            tell(Piece::Native { tid: stack.tid, frames });
        }
    }
    for (module, why) in malformed {
        let why = format!("no names from {module}: {why}");
        tell(Piece::Missing(Missing { what: "symbols".to_owned(), why }));
    }
}

/// The symbols of a stack's frames, those of each file together; why a file has none.
fn symbols<'s>(
    symbolizer: &'s Symbolizer,
    files: &Files,
    stack: &Stack,
    debug_syms: bool,
    malformed: &mut BTreeMap<String, String>,
) -> Vec<Option<Symbolized<'s>>> {
    let mut symbols: Vec<Option<Symbolized<'_>>> = stack.frames.iter().map(|_| None).collect();
    for (module, file) in files {
        let Some(file) = file else { continue };
        let frames = stack.frames.iter().enumerate();
        let of_it = frames.filter(|(_, frame)| frame.module.as_ref() == Some(module));
        let (places, offsets): (Vec<usize>, Vec<u64>) =
            of_it.map(|(place, frame)| (place, frame.offset)).unzip();
        let source = file.source(debug_syms);
        let symbolize = || symbolizer.symbolize(&source, Input::FileOffset(&offsets));
        let why = match catch_unwind(AssertUnwindSafe(symbolize)) {
            Ok(Ok(found)) => {
                places.into_iter().zip(found).for_each(|(place, it)| symbols[place] = Some(it));
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it is malformed".to_owned(),
        };
        malformed.entry(module.clone()).or_insert(why);
    }
    symbols
}

/// The file in which an address lies, opened.
fn open(modules: &Modules, address: u64) -> Option<Named> {
    if let Some(bytes) = modules.vdso(address) {
        let mut file = File::from(rustix::fs::memfd_create("vdso", MemfdFlags::CLOEXEC).ok()?);
        file.write_all(bytes).ok()?;
        return Some(Named { file, has_safe_links: true });
    }
    let file = modules.find(address)?.open()?;
    let has_safe_links = catch_unwind(AssertUnwindSafe(|| has_safe_links(&file))).unwrap_or(false);
    Some(Named { file, has_safe_links })
}

/// Whether a file's links to debug information are names alone, and its own name still is its.
fn has_safe_links(file: &File) -> bool {
    let Ok(copy) = file.try_clone() else { return false };
    let cache = ReadCache::new(copy);
    let Ok(elf) = ElfFile64::<object::Endianness, _>::parse(&cache) else { return false };
    let is_name = |link: Option<(&[u8], u32)>| link.is_none_or(|(name, _)| !name.contains(&b'/'));
    let has_no_path = elf.gnu_debuglink().is_ok_and(is_name)
        && elf.gnu_debugaltlink().is_ok_and(|link| link.is_none());
    // They are looked for beside the file: where its name is, if that is still its.
    let beside = std::fs::canonicalize(path_of(file)).and_then(std::fs::symlink_metadata);
    let is_it = match (beside, file.metadata()) {
        (Ok(found), Ok(own)) => (found.dev(), found.ino()) == (own.dev(), own.ino()),
        _ => true, // there is nothing of that name
    };
    has_no_path && is_it
}

fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

impl Named {
    fn source(&self, debug_syms: bool) -> Source<'static> {
        let mut elf = Elf::new(path_of(&self.file));
        elf.debug_syms = debug_syms && self.has_safe_links;
        Source::Elf(elf)
    }
}

/// The functions at one address, the innermost of those that the compiler inlined first.
fn named(frame: &NativeFrame, symbol: Option<&Symbolized<'_>>) -> Vec<Frame> {
    let unnamed = frame.unnamed();
    let Some(Symbolized::Sym(symbol)) = symbol else { return vec![unnamed] };
    let Sym { name, code_info, inlined, .. } = symbol;
    let outer = (name, code_info.as_deref());
    let inner = inlined.iter().map(|inlined| (&inlined.name, inlined.code_info.as_ref()));
    let mut frames: Vec<Frame> = std::iter::once(outer)
        .chain(inner)
        .map(|(name, place)| Frame {
            function: demangled(name),
            file: place.map(file_of),
            line: place.and_then(|place| place.line).filter(|&line| line > 0),
            module: unnamed.module.clone(),
        })
        .collect();
    frames.reverse();
    frames
}

/// A function as its language writes it. A name of C stays as it is: `a` would be read as a type of C++.
fn demangled(name: &str) -> String {
    if !name.starts_with("_Z") && !name.starts_with("_R") {
        return name.to_owned();
    }
    if let Ok(name) = rustc_demangle::try_demangle(name) {
        return format!("{name:#}"); // without the hash
    }
    let symbol = cpp_demangle::Symbol::new(name).ok();
    symbol.and_then(|it| it.demangle().ok()).unwrap_or_else(|| name.to_owned())
}

fn file_of(place: &CodeInfo<'_>) -> String {
    place.to_path().to_string_lossy().into_owned()
}
