//! Scans the sources for public functions that take a number; each is listed by its shortest public path.
//!
//! An entry is a function or method (`core::Tensor::narrow`), or a type with numbers in public fields, since it can be built
//! by a literal that no constructor checks (`kernels::conv::Conv {}`).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Fields, FnArg, GenericArgument, GenericParam, Generics, ImplItem, Item, PathArguments, ReturnType,
    Safety, Signature, TraitItem, Type, TypeParamBound, UseTree, Visibility, WherePredicate,
};

/// The library crates, by their source folders.
pub const CRATES: [&str; 7] = ["core", "kernels", "autodiff", "nn", "models", "io", "pipeline"];

/// Primitive numbers, half-precision types, and the traits of numbers and vectors in the kernels.
const NUMBERS: [&str; 17] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64", "f16",
    "bf16", "Element",
];

type ModulePath = Vec<String>;

/// A module: its declarations and imports.
#[derive(Default)]
struct Module {
    items: BTreeMap<String, (bool, Item)>,
    children: BTreeMap<String, bool>,
    /// Local name, path, and whether the import is public.
    uses: Vec<(String, Vec<String>, bool)>,
    globs: Vec<(Vec<String>, bool)>,
    impls: Vec<syn::ItemImpl>,
}

struct Sources {
    modules: BTreeMap<ModulePath, Module>,
    /// Types with numbers in public fields, or convertible from a number by `Into`.
    carriers: BTreeSet<String>,
}

/// What has cases.
#[derive(Default)]
pub struct Entries {
    /// Every public function that takes a number, and every literal type that carries one and has methods, or that such a
    /// function takes: these must have a case.
    pub required: BTreeSet<String>,
    /// The other literal types that carry a number, parts of the former: these may have one.
    pub optional: BTreeSet<String>,
}

/// What has cases in all crates.
pub fn entries() -> Entries {
    let mut sources = Sources { modules: BTreeMap::new(), carriers: BTreeSet::new() };
    for name in CRATES {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name).join("src/lib.rs");
        sources.read(vec![name.to_owned()], &file);
    }
    sources.find_carriers();
    let mut entries = Entries::default();
    CRATES.iter().for_each(|name| sources.entries_of(name, &mut entries));
    entries
}

/// Whether an item isn't in this build: of tests alone, or of the feature that needs a CUDA toolkit.
fn is_left_out(attributes: &[Attribute]) -> bool {
    let toolkit = |value: &syn::Expr| matches!(value, syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. }) if name.value() == "cust-interop");
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
            || attribute.parse_args::<syn::MetaNameValue>().is_ok_and(|condition| toolkit(&condition.value))
    })
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

impl Sources {
    fn read(&mut self, module: ModulePath, file: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let folder = match file.file_name().and_then(|name| name.to_str()) {
            Some("mod.rs" | "lib.rs") => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        self.take(module, syntax.items, &folder);
    }

    fn take(&mut self, path: ModulePath, items: Vec<Item>, folder: &Path) {
        let mut module = Module::default();
        for item in items {
            let (attributes, name, public) = match &item {
                Item::Fn(item) => (&item.attrs, item.sig.ident.to_string(), is_public(&item.vis)),
                Item::Struct(item) => (&item.attrs, item.ident.to_string(), is_public(&item.vis)),
                Item::Enum(item) => (&item.attrs, item.ident.to_string(), is_public(&item.vis)),
                Item::Trait(item) => (&item.attrs, item.ident.to_string(), is_public(&item.vis)),
                Item::Type(item) => (&item.attrs, item.ident.to_string(), is_public(&item.vis)),
                Item::Mod(item) => (&item.attrs, item.ident.to_string(), is_public(&item.vis)),
                Item::Use(item) => (&item.attrs, String::new(), is_public(&item.vis)),
                Item::Impl(item) => (&item.attrs, String::new(), true),
                Item::Macro(item) => (&item.attrs, String::new(), true),
                _ => continue,
            };
            if is_left_out(attributes) {
                continue;
            }
            match item {
                Item::Mod(item) => {
                    let mut child = path.clone();
                    child.push(name.clone());
                    module.children.insert(name.clone(), public);
                    match item.content {
                        Some((_, items)) => self.take(child, items, &folder.join(&name)),
                        None => {
                            let candidates: [PathBuf; 2] =
                                [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
                            let file = candidates.iter().find(|file| file.exists());
                            self.read(child, file.unwrap_or_else(|| panic!("no source of {path:?}::{name}")));
                        }
                    }
                }
                Item::Use(item) => flatten(&item.tree, &mut Vec::new(), public, &mut module),
                Item::Impl(item) => module.impls.push(item),
                Item::Macro(item) => refuse_hidden(&item),
                item => {
                    module.items.insert(name, (public, item));
                }
            }
        }
        self.modules.insert(path, module);
    }

    /// Resolves `path` in `module` to its module of definition and its name there.
    fn resolve(&self, module: &ModulePath, path: &[String], depth: usize) -> Option<(ModulePath, String)> {
        if depth > 20 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let mut place = module.clone();
        match first.as_str() {
            "crate" => place.truncate(1),
            "self" => {}
            "super" => {
                place.pop();
            }
            name => {
                let outside = name.strip_prefix("tomograd_").map(|name| vec![name.to_owned()]);
                if let Some(outside) = outside.filter(|outside| self.modules.contains_key(outside)) {
                    place = outside;
                } else if self.modules.get(module)?.children.contains_key(name) {
                    place.push(name.to_owned());
                } else {
                    let there = self.modules.get(module)?;
                    if there.items.contains_key(name) {
                        return rest.is_empty().then(|| (module.clone(), name.to_owned()));
                    }
                    if let Some((_, target, _)) =
                        there.uses.iter().find(|(known, target, _)| known == name && target != path)
                    {
                        let target: Vec<String> = target.iter().chain(rest).cloned().collect();
                        return self.resolve(module, &target, depth + 1);
                    }
                    return there.globs.iter().find_map(|(target, _)| {
                        let target: Vec<String> = target.iter().chain(path).cloned().collect();
                        self.resolve(module, &target, depth + 1)
                    });
                }
            }
        }
        if rest.is_empty() {
            // A module rather than an item.
            return Some((place, String::new()));
        }
        self.resolve(&place, rest, depth + 1)
    }

    /// The public items of a crate: definition and shortest public path.
    fn reachable(&self, name: &str) -> BTreeMap<(ModulePath, String), String> {
        let mut found = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut queue = VecDeque::from([(vec![name.to_owned()], name.to_owned())]);
        while let Some((path, public)) = queue.pop_front() {
            if !seen.insert((path.clone(), public.clone())) || public.matches("::").count() > 6 {
                continue;
            }
            let Some(module) = self.modules.get(&path) else { continue };
            let mut note = |definition: (ModulePath, String), name: &str| {
                let path = format!("{public}::{name}");
                let shortest = found.entry(definition).or_insert_with(|| path.clone());
                if path.matches("::").count() < shortest.matches("::").count() {
                    *shortest = path;
                }
            };
            for (name, (visible, _)) in &module.items {
                if *visible {
                    note((path.clone(), name.clone()), name);
                }
            }
            for (name, target, visible) in &module.uses {
                if !visible {
                    continue;
                }
                match self.resolve(&path, target, 0) {
                    // Items of other crates are listed there.
                    Some((place, _)) if place[0] != path[0] => {}
                    Some((place, item)) if item.is_empty() => queue.push_back((place, format!("{public}::{name}"))),
                    Some(definition) => note(definition, name),
                    None => {}
                }
            }
            for (target, visible) in &module.globs {
                if let (true, Some((place, _))) = (visible, self.resolve(&path, target, 0)) {
                    queue.push_back((place, public.clone()));
                }
            }
            for (name, visible) in &module.children {
                if *visible {
                    let mut child = path.clone();
                    child.push(name.clone());
                    queue.push_back((child, format!("{public}::{name}")));
                }
            }
        }
        found
    }

    /// Extends the set of types that carry numbers up to a fixed point.
    fn find_carriers(&mut self) {
        loop {
            let mut more = BTreeSet::new();
            for (place, module) in &self.modules {
                for (name, (public, item)) in &module.items {
                    if *public && !self.carriers.contains(name) && self.carries(item) {
                        more.insert(name.clone());
                    }
                    // `trait Real: Element`, and `type Elem: Real` in a trait.
                    if let Item::Trait(definition) = item {
                        let number = |bound: &TypeParamBound| self.bound_is_number(bound, &definition.generics);
                        if definition.supertraits.iter().any(number) {
                            more.insert(name.clone());
                        }
                        for item in &definition.items {
                            if let TraitItem::Type(item) = item
                                && item.bounds.iter().any(number)
                            {
                                more.insert(item.ident.to_string());
                            }
                        }
                    }
                }
                for block in &module.impls {
                    if let (Some((of, _)), Some(name)) = (&block.trait_, type_name(&block.self_ty)) {
                        let Some(segment) = of.segments.last() else { continue };
                        let number = |given: &Type| self.is_number(given, &Generics::default());
                        if segment.ident == "From" {
                            if arguments(&segment.arguments).first().is_some_and(number) {
                                more.insert(name);
                            }
                        } else if NUMBERS.contains(&name.as_str()) {
                            // A local trait that is implemented for numbers, as in `impl PerAxis for usize`.
                            let path: Vec<String> =
                                of.segments.iter().map(|segment| segment.ident.to_string()).collect();
                            if self.resolve(place, &path, 0).is_some() {
                                more.insert(segment.ident.to_string());
                            }
                        }
                    }
                }
            }
            let known = self.carriers.len();
            self.carriers.extend(more);
            if self.carriers.len() == known {
                return;
            }
        }
    }

    /// Whether a literal of this type has a number.
    fn carries(&self, item: &Item) -> bool {
        let numbers = |fields: &Fields, all_visible: bool, generics: &Generics| {
            (all_visible || fields.iter().all(|field| is_public(&field.vis)))
                && fields.iter().any(|field| self.is_number(&field.ty, generics))
        };
        match item {
            Item::Struct(item) => numbers(&item.fields, false, &item.generics),
            Item::Enum(item) => item.variants.iter().any(|variant| numbers(&variant.fields, true, &item.generics)),
            _ => false,
        }
    }

    fn is_number(&self, given: &Type, generics: &Generics) -> bool {
        match given {
            Type::Path(path) => {
                let Some(segment) = path.path.segments.last() else { return false };
                let name = segment.ident.to_string();
                NUMBERS.contains(&name.as_str())
                    || self.carriers.contains(&name)
                    || self.bounded(&name, generics)
                    || arguments(&segment.arguments).iter().any(|argument| self.is_number(argument, generics))
            }
            Type::Reference(reference) => self.is_number(&reference.elem, generics),
            Type::Slice(slice) => self.is_number(&slice.elem, generics),
            Type::Array(array) => self.is_number(&array.elem, generics),
            Type::Paren(paren) => self.is_number(&paren.elem, generics),
            Type::Group(group) => self.is_number(&group.elem, generics),
            Type::Ptr(pointer) => self.is_number(&pointer.elem, generics),
            Type::Tuple(tuple) => tuple.elems.iter().any(|element| self.is_number(element, generics)),
            Type::ImplTrait(given) => given.bounds.iter().any(|bound| self.bound_is_number(bound, generics)),
            Type::TraitObject(given) => given.bounds.iter().any(|bound| self.bound_is_number(bound, generics)),
            _ => false,
        }
    }

    /// `Into<f64>`, `Element`, `IntoIterator<Item = usize>`, or a function that returns a number.
    fn bound_is_number(&self, bound: &TypeParamBound, generics: &Generics) -> bool {
        let TypeParamBound::Trait(bound) = bound else { return false };
        let Some(segment) = bound.path.segments.last() else { return false };
        let name = segment.ident.to_string();
        if NUMBERS.contains(&name.as_str()) || self.carriers.contains(&name) {
            return true;
        }
        match &segment.arguments {
            PathArguments::Parenthesized(function) => match &function.output {
                ReturnType::Type(_, output) => self.is_number(output, generics),
                ReturnType::Default => false,
            },
            given => arguments(given).iter().any(|argument| self.is_number(argument, generics)),
        }
    }

    /// Whether the bounds of the generic parameter `name` imply a number.
    fn bounded(&self, name: &str, generics: &Generics) -> bool {
        let of_parameters = generics.params.iter().any(|parameter| match parameter {
            GenericParam::Type(parameter) => {
                parameter.ident == name && parameter.bounds.iter().any(|bound| self.bound_is_number(bound, generics))
            }
            _ => false,
        });
        of_parameters
            || generics.where_clause.iter().flat_map(|clause| &clause.predicates).any(|predicate| match predicate {
                WherePredicate::Type(predicate) => {
                    type_name(&predicate.bounded_ty).is_some_and(|bounded| bounded == name)
                        && predicate.bounds.iter().any(|bound| self.bound_is_number(bound, generics))
                }
                _ => false,
            })
    }

    /// Whether a caller can pass a number. Unsafe functions are excluded, since their callers guarantee the arguments.
    fn takes_number(&self, signature: &Signature, outer: &Generics) -> bool {
        if matches!(signature.safety, Safety::Unsafe(_)) {
            return false;
        }
        let mut generics = signature.generics.clone();
        generics.params.extend(outer.params.iter().cloned());
        if let Some(clause) = &outer.where_clause {
            generics.make_where_clause().predicates.extend(clause.predicates.iter().cloned());
        }
        signature.inputs.iter().any(|input| match input {
            FnArg::Receiver(_) => false,
            FnArg::Typed(typed) => self.is_number(&typed.ty, &generics),
        })
    }

    fn entries_of(&self, name: &str, entries: &mut Entries) {
        let reachable = self.reachable(name);
        // Types that public functions take, or that have methods.
        let mut used: BTreeSet<String> = BTreeSet::new();
        for ((place, item), public) in &reachable {
            match &self.modules[place].items[item].1 {
                Item::Fn(function) if self.takes_number(&function.sig, &Generics::default()) => {
                    entries.required.insert(public.clone());
                }
                Item::Trait(definition) => {
                    for item in &definition.items {
                        if let TraitItem::Fn(function) = item
                            && self.takes_number(&function.sig, &definition.generics)
                        {
                            entries.required.insert(format!("{public}::{}", function.sig.ident));
                        }
                    }
                }
                _ => {}
            }
        }
        for (path, module) in self.modules.iter().filter(|(path, _)| path[0] == name) {
            for block in &module.impls {
                let Some(path_of_type) = type_path(&block.self_ty) else { continue };
                let Some(definition) = self.resolve(path, &path_of_type, 0) else { continue };
                let Some(public) = reachable.get(&definition) else { continue };
                match &block.trait_ {
                    Some((of, _)) => {
                        let of: Vec<String> = of.segments.iter().map(|segment| segment.ident.to_string()).collect();
                        if self.resolve(path, &of, 0).is_some() {
                            used.insert(public.clone());
                        }
                    }
                    None => {
                        for item in &block.items {
                            let ImplItem::Fn(function) = item else { continue };
                            if !is_public(&function.vis) {
                                continue;
                            }
                            if function.sig.receiver().is_some() {
                                used.insert(public.clone());
                            }
                            if self.takes_number(&function.sig, &block.generics) {
                                entries.required.insert(format!("{public}::{}", function.sig.ident));
                            }
                        }
                    }
                }
            }
        }
        for ((place, item), public) in &reachable {
            if self.carries(&self.modules[place].items[item].1) {
                let kind = if used.contains(public) { &mut entries.required } else { &mut entries.optional };
                kind.insert(format!("{public} {{}}"));
            }
        }
    }
}

fn arguments(arguments: &PathArguments) -> Vec<Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else { return Vec::new() };
    arguments
        .args
        .iter()
        .filter_map(|argument| match argument {
            GenericArgument::Type(given) => Some(given.clone()),
            GenericArgument::AssocType(given) => Some(given.ty.clone()),
            _ => None,
        })
        .collect()
}

fn type_path(given: &Type) -> Option<Vec<String>> {
    match given {
        Type::Path(path) => Some(path.path.segments.iter().map(|segment| segment.ident.to_string()).collect()),
        Type::Reference(reference) => type_path(&reference.elem),
        _ => None,
    }
}

fn type_name(given: &Type) -> Option<String> {
    type_path(given)?.pop()
}

fn flatten(tree: &UseTree, before: &mut Vec<String>, public: bool, module: &mut Module) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, public, module);
            before.pop();
        }
        UseTree::Name(name) => {
            let mut target = before.clone();
            if name.ident != "self" {
                target.push(name.ident.to_string());
            }
            if let Some(last) = target.last().cloned() {
                module.uses.push((last, target, public));
            }
        }
        UseTree::Rename(rename) => {
            let mut target = before.clone();
            target.push(rename.ident.to_string());
            module.uses.push((rename.rename.to_string(), target, public));
        }
        UseTree::Glob(_) => module.globs.push((before.clone(), public)),
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, before, public, module);
            }
        }
    }
}

/// The contents of macros aren't visible before expansion, so a macro in the sources must not declare a public function that
/// takes a number.
fn refuse_hidden(item: &syn::ItemMacro) {
    fn walk(tokens: TokenStream, name: &str) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut public = false;
        for (i, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(word) if *word == "fn" => {
                    public = i > 0 && matches!(&tokens[i - 1], TokenTree::Ident(word) if *word == "pub");
                }
                TokenTree::Group(group) => {
                    let numbers = group.stream().into_iter().any(
                        |token| matches!(token, TokenTree::Ident(word) if NUMBERS.iter().any(|number| word == number)),
                    );
                    assert!(!(public && numbers), "macro {name} declares a public function that takes a number");
                    public = false;
                    walk(group.stream(), name);
                }
                _ => {}
            }
        }
    }
    walk(item.mac.tokens.clone(), &item.ident.as_ref().map(ToString::to_string).unwrap_or_default());
}
