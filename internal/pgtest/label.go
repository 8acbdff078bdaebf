package pgtest

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// LabelProvider is the provider that LoadLabelProvider gives a server.
const LabelProvider = "label"

// CanLabel says whether this machine is one that LoadLabelProvider makes libraries for.
func CanLabel() bool {
	return runtime.GOOS == "linux" && machines[runtime.GOARCH].machine != 0
}

// LoadLabelProvider has every session of the server that begins from now on load a
// library that takes any security label of any object. Distributions ship no such
// library that does without SELinux, and a compiler with the server's headers need
// not be here: so the library is put together here, byte by byte.
func (s *Server) LoadLabelProvider(t testing.TB) {
	t.Helper()
	path := filepath.Join(s.DataDir(), "label.so")
	if err := os.WriteFile(path, labelLibrary(machines[runtime.GOARCH], s.Major), 0o755); err != nil {
		t.Fatal(err)
	}
	dsn := s.DSN("postgres")
	Exec(t, dsn, `ALTER SYSTEM SET session_preload_libraries = '`+path+`'`, `SELECT pg_reload_conf()`)
	Eventually(t, time.Minute, func() error {
		_, err := Try(context.Background(), dsn, `SECURITY LABEL FOR `+LabelProvider+` ON DATABASE postgres IS NULL`)
		return err
	})
}

// machine is what the library is for a kind of processor.
type machine struct {
	machine elf.Machine
	glob    uint32 // the relocation that stores a symbol's address
	// code assembles three functions at address at: one that returns the address
	// magic, one that calls what slot points to with the addresses name and hook, and
	// hook, which does nothing. Each takes up stride bytes.
	code func(at, magic, name, slot uint64) []byte
}

// stride is the room for a function.
const stride = 32

var machines = map[string]machine{
	"amd64": {elf.EM_X86_64, uint32(elf.R_X86_64_GLOB_DAT), func(at, magic, name, slot uint64) []byte {
		b := make([]byte, 3*stride)
		relative := func(offset int, opcode []byte, target uint64) int {
			offset += copy(b[offset:], opcode)
			binary.LittleEndian.PutUint32(b[offset:], uint32(target-at-uint64(offset)-4))
			return offset + 4
		}
		b[relative(0, []byte{0x48, 0x8d, 0x05}, magic)] = 0xc3       // lea rax, magic; ret
		next := relative(stride, []byte{0x48, 0x8d, 0x3d}, name)     // lea rdi, name
		next = relative(next, []byte{0x48, 0x8d, 0x35}, at+2*stride) // lea rsi, hook
		relative(next, []byte{0xff, 0x25}, slot)                     // jmp [slot]
		b[2*stride] = 0xc3                                           // ret
		return b
	}},
	"arm64": {elf.EM_AARCH64, uint32(elf.R_AARCH64_GLOB_DAT), func(at, magic, name, slot uint64) []byte {
		b := make([]byte, 3*stride)
		put := func(offset int, word uint32) { binary.LittleEndian.PutUint32(b[offset:], word) }
		adr := func(offset int, register uint32, target uint64) {
			d := uint32(target - at - uint64(offset))
			put(offset, 0x10000000|(d&3)<<29|(d>>2&0x7ffff)<<5|register)
		}
		const ret = 0xd65f03c0
		adr(0, 0, magic) // adr x0, magic
		put(4, ret)
		adr(stride, 0, name)                                                  // adr x0, name
		adr(stride+4, 1, at+2*stride)                                         // adr x1, hook
		put(stride+8, 0x58000000|(uint32(slot-at-stride-8)>>2&0x7ffff)<<5|16) // ldr x16, slot
		put(stride+12, 0xd61f0200)                                            // br x16
		put(2*stride, ret)
		return b
	}},
}

// magicBlock is the Pg_magic_struct of a server (fmgr.h), which says that a library
// was made for it.
func magicBlock(major int) []byte {
	numbers := []uint32{0, uint32(major) * 100, 100, 32, 64, 1} // length, version, arguments, index keys, bytes of a name, float8 by value
	if major < 13 {
		numbers = append(numbers, 1) // float4 by value
	}
	b := make([]byte, 0, 80)
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	if major >= 15 {
		var extra [32]byte
		copy(extra[:], "PostgreSQL")
		b = append(b, extra[:]...)
	}
	if major >= 18 {
		b = append(b, make([]byte, 16)...) // no name and version of the module
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// labelLibrary is a shared library that does what this C would:
//
//	PG_MODULE_MAGIC;
//	static void hook(const ObjectAddress *object, const char *label) {}
//	void _PG_init(void) { register_label_provider("label", hook); }
//
// It lies in two segments: what is read and executed, at address 0, and behind it
// what the loader writes to, further away than the largest page.
func labelLibrary(m machine, major int) []byte {
	const names = "\x00Pg_magic_func\x00_PG_init\x00register_label_provider\x00"
	const (
		programs = 64
		symbols  = programs + 4*56
		hash     = symbols + 4*24
		text     = hash + 7*4
		fixes    = (text + uint64(len(names)) + 7) &^ 7
		magic    = fixes + 24
		name     = magic + 80
		code     = name + 16
		slot     = 0x10000
		dynamic  = slot + 16
		size     = dynamic + 9*16
	)
	image := make([]byte, size)
	put := func(offset uint64, structures ...any) {
		for _, v := range structures {
			n, err := binary.Encode(image[offset:], binary.LittleEndian, v)
			if err != nil {
				panic(fmt.Sprintf("a structure of ELF cannot be written: %v", err))
			}
			offset += uint64(n)
		}
	}
	put(0, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(m.machine), Version: uint32(elf.EV_CURRENT),
		Phoff: programs, Ehsize: programs, Phentsize: 56, Phnum: 4, Shentsize: 64,
	})
	put(programs,
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Filesz: code + 3*stride, Memsz: code + 3*stride, Align: slot},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Off: slot, Vaddr: slot, Filesz: size - slot, Memsz: size - slot, Align: slot},
		elf.Prog64{Type: uint32(elf.PT_DYNAMIC), Flags: uint32(elf.PF_R | elf.PF_W), Off: dynamic, Vaddr: dynamic, Filesz: size - dynamic, Memsz: size - dynamic, Align: 8},
		elf.Prog64{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W), Align: 16})
	function := elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC)
	index := func(s string) uint32 { return uint32(strings.Index(names, s)) }
	put(symbols, elf.Sym64{},
		elf.Sym64{Name: index("Pg_magic_func"), Info: function, Shndx: 1, Value: code, Size: stride},
		elf.Sym64{Name: index("_PG_init"), Info: function, Shndx: 1, Value: code + stride, Size: stride},
		elf.Sym64{Name: index("register_label_provider"), Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_NOTYPE)})
	put(hash, [7]uint32{1, 4, 1, 0, 2, 3, 0}) // one list of all
	copy(image[text:], names)
	put(fixes, elf.Rela64{Off: slot, Info: elf.R_INFO(3, m.glob)})
	copy(image[magic:name], magicBlock(major))
	copy(image[name:], LabelProvider)
	copy(image[code:], m.code(code, magic, name, slot))
	for i, d := range []elf.Dyn64{
		{Tag: int64(elf.DT_HASH), Val: hash}, {Tag: int64(elf.DT_STRTAB), Val: text}, {Tag: int64(elf.DT_STRSZ), Val: uint64(len(names))},
		{Tag: int64(elf.DT_SYMTAB), Val: symbols}, {Tag: int64(elf.DT_SYMENT), Val: 24},
		{Tag: int64(elf.DT_RELA), Val: fixes}, {Tag: int64(elf.DT_RELASZ), Val: 24}, {Tag: int64(elf.DT_RELAENT), Val: 24}, {},
	} {
		put(uint64(dynamic+16*i), d)
	}
	return image
}
