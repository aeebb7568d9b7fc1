//! An interpreter of pickle opcodes (listed in Python's `pickletools`) that builds data only: no class is resolved and no
//! function is called. It supports protocols 2 to 5 and the opcodes that these share with older ones.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tomograd_core::{Error, Result};

use super::{
    OPERATION,
    input::Input,
    node::{Id, Node, Object},
};

/// Limit of memory that a pickle can allocate by referencing earlier values: bytes of nodes per byte of the pickle, and bytes
/// that are always allowed.
const UNFOLDING: u64 = 64;
const FREE: u64 = 1 << 20;

/// Limit of the number of values, since a large hostile file could otherwise exhaust the memory.
const MOST_VALUES: usize = 1 << 25;

/// All nodes of the pickles, and the names of the classes and functions in them.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Node>,
    pub(crate) globals: BTreeSet<Arc<str>>,
}

impl Nodes {
    pub(crate) fn get(&self, id: Id) -> &Node {
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }
}

/// Reads one pickle and returns its root node.
pub(crate) fn read(input: &mut Input, nodes: &mut Nodes) -> Result<Id> {
    let start = input.place();
    let mut machine =
        Machine { input, all: nodes, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), start, charged: 0 };
    loop {
        let place = machine.input.place();
        let done = machine.check_size().and_then(|()| machine.input.byte()).and_then(|code| machine.step(code));
        if let Some(root) = done.map_err(|error| error.within(format!("the pickle's byte {}", place - start)))? {
            return Ok(root);
        }
    }
}

pub(super) struct Machine<'a> {
    input: &'a mut Input,
    pub(super) all: &'a mut Nodes,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    start: u64,
    charged: u64,
}

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what).expected("a pickle of protocol 2 to 5")
}

impl Machine<'_> {
    pub(super) fn node(&self, id: Id) -> &Node {
        self.all.get(id)
    }

    fn check_size(&self) -> Result<()> {
        let held = [self.all.nodes.len(), self.stack.len(), self.marks.len(), self.memo.len()];
        if held.iter().all(|&held| held < MOST_VALUES) {
            return Ok(());
        }
        Err(fail(format!("more than {MOST_VALUES} values")))
    }

    pub(super) fn make(&mut self, node: Node) -> Result<Id> {
        let id = self.all.nodes.len() as Id;
        self.all.nodes.push(node);
        Ok(id)
    }

    /// Counts bytes that are allocated without input bytes, and fails beyond the limit.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<()> {
        self.charged = self.charged.saturating_add(bytes as u64);
        let consumed = self.input.place() - self.start;
        if self.charged > FREE + UNFOLDING * consumed {
            return Err(fail(format!("{consumed} bytes that unfold to more than {}", FREE + UNFOLDING * consumed)));
        }
        Ok(())
    }

    fn push(&mut self, node: Node) -> Result<()> {
        let id = self.make(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(fail("a value is taken where there is none"));
        }
        self.stack.pop().ok_or_else(|| fail("a value is taken where there is none"))
    }

    fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().filter(|_| self.stack.len() > floor);
        top.copied().ok_or_else(|| fail("a value is named where there is none"))
    }

    /// Pops the values above the topmost mark.
    fn marked(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| fail("there is no mark"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn remember(&mut self, index: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<()> {
        let id = *self.memo.get(&index).ok_or_else(|| fail(format!("nothing was remembered as {index}")))?;
        self.stack.push(id);
        Ok(())
    }

    fn bytes(&mut self, count: u64) -> Result<()> {
        let bytes = self.input.take(count)?;
        self.push(Node::Bytes(bytes.into()))
    }

    fn text(&mut self, count: u64) -> Result<()> {
        let bytes = self.input.take(count)?;
        self.push(Node::Text(String::from_utf8_lossy(&bytes).into()))
    }

    /// A Python 2 string, which may be text or bytes.
    fn string(&mut self, count: u64) -> Result<()> {
        let node = match String::from_utf8(self.input.take(count)?) {
            Ok(text) => Node::Text(text.into()),
            Err(error) => Node::Bytes(error.into_bytes().into()),
        };
        self.push(node)
    }

    /// An integer in two's complement.
    fn long(&mut self, count: u64) -> Result<()> {
        let bytes = self.input.take(count)?;
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let fill = if negative { 0xFF } else { 0 };
        let fits = bytes.iter().skip(8).all(|&byte| byte == fill)
            && bytes.get(7).is_none_or(|&byte| (byte >= 0x80) == negative);
        if !fits {
            return self.push(Node::BigInt(bytes.into()));
        }
        let mut word = [fill; 8];
        word.iter_mut().zip(&bytes).for_each(|(to, &from)| *to = from);
        self.push(Node::Int(i64::from_le_bytes(word)))
    }

    /// A decimal integer, as Python 2 writes large ones; `00` and `01` are booleans.
    fn decimal(&mut self) -> Result<()> {
        let line = self.input.line()?;
        let text = String::from_utf8_lossy(&line);
        let node = match text.trim_end().trim_end_matches('L') {
            "00" => Node::Bool(false),
            "01" => Node::Bool(true),
            text => Node::Int(
                text.parse()
                    .map_err(|_| fail(format!("{:?} as an integer", text.chars().take(40).collect::<String>())))?,
            ),
        };
        self.push(node)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let full: Arc<str> = format!("{module}.{name}").into();
        if !self.all.globals.contains(&full) {
            self.all.globals.insert(full.clone());
        }
        self.push(Node::Global(full))
    }

    fn tuple(&mut self, count: usize) -> Result<()> {
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            ids.push(self.pop()?);
        }
        ids.reverse();
        self.push(Node::Tuple(ids.into()))
    }

    pub(super) fn object(&mut self, callee: Id, args: Option<Id>) -> Result<Id> {
        self.charge(size_of::<Object>())?;
        let object = Object { callee, args, state: None, items: Vec::new(), list: Vec::new() };
        self.make(Node::Object(Box::new(object)))
    }

    fn append(&mut self, ids: Vec<Id>) -> Result<()> {
        let top = self.top()? as usize;
        match self.all.nodes.get_mut(top) {
            Some(Node::List(list) | Node::Set(list)) => list.extend(ids),
            Some(Node::Object(object)) => object.list.extend(ids),
            _ => return Err(fail("something is appended to what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, ids: &[Id]) -> Result<()> {
        if !ids.len().is_multiple_of(2) {
            return Err(fail("a key without a value"));
        }
        let pairs = ids.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?)));
        let top = self.top()? as usize;
        match self.all.nodes.get_mut(top) {
            Some(Node::Dict(items)) => items.extend(pairs),
            Some(Node::Object(object)) => object.items.extend(pairs),
            _ => return Err(fail("an item is set in what is no dict")),
        }
        Ok(())
    }

    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let target = self.top()?;
        if let Some(array) = self.built_array(target, state)? {
            if let Some(node) = self.all.nodes.get_mut(target as usize) {
                *node = array;
            }
        } else if let Some(Node::Object(object)) = self.all.nodes.get_mut(target as usize) {
            object.state = Some(state);
        }
        // Attributes of a dict (the version metadata of a state dict) and of a tensor are dropped.
        Ok(())
    }

    /// Executes one opcode; the last one returns the root node.
    #[rustfmt::skip]
    fn step(&mut self, code: u8) -> Result<Option<Id>> {
        match code {
            // PROTO and FRAME have no effect.
            0x80 => {
                let version = self.input.byte()?;
                if version > 5 {
                    return Err(fail(format!("a pickle of protocol {version}")));
                }
            }
            0x95 => drop(self.input.array::<8>()?),
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.marked()?),
            b'2' => self.stack.push(self.top()?),
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'J' => { let x = i32::from_le_bytes(self.input.array()?); self.push(Node::Int(x.into()))? }
            b'K' => { let x = self.input.byte()?; self.push(Node::Int(x.into()))? }
            b'M' => { let x = u16::from_le_bytes(self.input.array()?); self.push(Node::Int(x.into()))? }
            b'G' => { let x = f64::from_be_bytes(self.input.array()?); self.push(Node::Float(x))? }
            b'I' | b'L' => self.decimal()?,
            0x8a => { let count = self.input.byte()?; self.long(count.into())? }
            0x8b => { let count = self.length_4()?; self.long(count)? }
            b'U' => { let count = self.input.byte()?; self.string(count.into())? }
            b'T' => { let count = self.length_4()?; self.string(count)? }
            b'C' => { let count = self.input.byte()?; self.bytes(count.into())? }
            b'B' => { let count = self.length_4()?; self.bytes(count)? }
            0x8e | 0x96 => { let count = self.length_8()?; self.bytes(count)? }
            0x8c => { let count = self.input.byte()?; self.text(count.into())? }
            b'X' => { let count = self.length_4()?; self.text(count)? }
            0x8d => { let count = self.length_8()?; self.text(count)? }
            b']' => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b')' => self.push(Node::Tuple(Box::default()))?,
            0x8f => self.push(Node::Set(Vec::new()))?,
            0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
            b't' => { let ids = self.marked()?; self.push(Node::Tuple(ids.into()))? }
            b'l' => { let ids = self.marked()?; self.push(Node::List(ids))? }
            0x91 => { let ids = self.marked()?; self.push(Node::Set(ids))? }
            b'd' => { let ids = self.marked()?; self.push(Node::Dict(Vec::new()))?; self.set_items(&ids)? }
            b'a' => { let id = self.pop()?; self.append(vec![id])? }
            b'e' | 0x90 => { let ids = self.marked()?; self.append(ids)? }
            b's' => { let value = self.pop()?; let key = self.pop()?; self.set_items(&[key, value])? }
            b'u' => { let ids = self.marked()?; self.set_items(&ids)? }
            b'q' => { let index = self.input.byte()?; self.remember(index.into())? }
            b'r' => { let index = u32::from_le_bytes(self.input.array()?); self.remember(index)? }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => { let index = self.input.byte()?; self.recall(index.into())? }
            b'j' => { let index = u32::from_le_bytes(self.input.array()?); self.recall(index)? }
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(&String::from_utf8_lossy(&module), &String::from_utf8_lossy(&name))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Text(module), Node::Text(name)) = (self.node(module), self.node(name)) else {
                    return Err(fail("a class whose name is no text"));
                };
                let (module, name) = (module.clone(), name.clone());
                // Both strings may come from the memo, and so without input bytes.
                self.charge(module.len() + name.len())?;
                self.global(&module, &name)?;
            }
            b'R' | 0x81 => {
                let (args, callee) = (self.pop()?, self.pop()?);
                let made = if code == b'R' { self.reduce(callee, args)? } else { self.new_object(callee, args)? };
                self.stack.push(made);
            }
            // NEWOBJ_EX: keyword arguments are stored after the positional ones.
            0x92 => {
                let (named, args, callee) = (self.pop()?, self.pop()?, self.pop()?);
                let both = self.make(Node::Tuple([args, named].into()))?;
                let made = self.object(callee, Some(both))?;
                self.stack.push(made);
            }
            // OBJ: class and arguments are above the mark. INST: the opcode names the class.
            b'o' => {
                let ids = self.marked()?;
                let (&callee, args) = ids.split_first().ok_or_else(|| fail("an object without a class"))?;
                let args = self.make(Node::Tuple(args.into()))?;
                let made = self.object(callee, Some(args))?;
                self.stack.push(made);
            }
            b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let ids = self.marked()?;
                self.global(&String::from_utf8_lossy(&module), &String::from_utf8_lossy(&name))?;
                let callee = self.pop()?;
                let args = self.make(Node::Tuple(ids.into()))?;
                let made = self.object(callee, Some(args))?;
                self.stack.push(made);
            }
            b'b' => self.build()?,
            b'Q' => { let id = self.pop()?; let made = self.persistent(id)?; self.stack.push(made) }
            _ => return Err(fail(format!("the instruction {code:#04x}"))),
        }
        Ok(None)
    }

    fn length_4(&mut self) -> Result<u64> {
        Ok(u32::from_le_bytes(self.input.array()?).into())
    }

    fn length_8(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.input.array()?))
    }
}
