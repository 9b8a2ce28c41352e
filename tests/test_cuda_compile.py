"""Every CUDA kernel compiles for every architecture it is meant for, within the budget that its source states.

No GPU is needed. The second half checks the check: what it must refuse, it refuses, and says why.
"""

from pathlib import Path

import pytest

from minitorch_unet.backend.cuda import inspection, nvrtc
from minitorch_unet.cli import main

REPOSITORY = Path(__file__).resolve().parents[1]
compiles = pytest.mark.skipif(nvrtc.unavailable_reason() is not None, reason=str(nvrtc.unavailable_reason()))

SOURCES = [*inspection.sources(), *inspection.sources(REPOSITORY / "benchmarks" / "gpu_stages")]
# Every variant for the newest architecture, the first variant for the others: `minitorch-unet compile` does them all.
CASES = [
    pytest.param(path, variant, architecture, id="-".join((path.stem, *variant, architecture)))
    for path in SOURCES
    for i, variant in enumerate(inspection.read_source(path).variants)
    for architecture in inspection.read_source(path).architectures[-1 if i else 0 :]
]


@compiles
@pytest.mark.parametrize(("path", "variant", "architecture"), CASES)
def test_kernels_keep_their_budgets(path: Path, variant: tuple[str, ...], architecture: str) -> None:
    source = inspection.read_source(path)
    # Where no instruction is asked for none is listed: without stack and spills there is no local memory either.
    listing = any(budget is not None and budget.needs for budget in source.budgets.values())
    compiled = inspection.compile_file(path, variant, architecture, listing)
    assert compiled.kernels
    assert inspection.findings(source, compiled) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_kernel_states_a_budget(path: Path) -> None:
    budgets = inspection.read_source(path).budgets
    assert budgets
    assert [name for name, budget in budgets.items() if budget is None] == []


# ------------------------------------------------------------------------------------- what the check must refuse

SCALE = """\
//@ budget: registers 16, shared 512
extern "C" __global__ void __launch_bounds__(128) scale(float* x, float a) {
  __shared__ float s[128];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = a * s[127 - threadIdx.x];
}
"""
# 64 values a thread, all needed again and again, where two blocks of 1024 threads leave 32 registers to each.
SPILLING = """\
//@ budget: registers 32, shared 0
extern "C" __global__ void __launch_bounds__(1024, 2) crowded(float* x) {
  float a[64];
  for (int i = 0; i < 64; i++) a[i] = x[i * 1024 + threadIdx.x];
  for (int k = 0; k < 100; k++)
#pragma unroll
    for (int i = 0; i < 64; i++) a[i] = a[i] * a[(i + 1) % 64] + a[(i + 17) % 64];
  for (int i = 0; i < 64; i++) x[i * 1024 + threadIdx.x] = a[i];
}
"""
# An array whose index is known only at run time cannot lie in registers.
INDEXED = """\
//@ budget: registers 40, shared 0
extern "C" __global__ void indexed(float* x, const int* at) {
  float a[32];
  for (int i = 0; i < 32; i++) a[i] = x[i];
  for (int i = 0; i < 32; i++) a[at[i]] += x[32 + i];
  for (int i = 0; i < 32; i++) x[i] = a[at[32 + i]];
}
"""
# The accumulator is used between two wgmma instructions, which must therefore wait for each other.
SERIAL = """\
//@ architectures: sm_90a
//@ budget: registers 32, shared 0, needs HGMMA
extern "C" __global__ void __launch_bounds__(128) serial(float* y, unsigned long long a, unsigned long long b) {
  float d[4] = {};
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  for (int k = 0; k < 4; k++) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b));
    d[0] *= 2.f;
  }
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 4; i++) y[threadIdx.x * 4 + i] = d[i];
}
"""
PRODUCT = """\
//@ budget: registers 32, shared 0, needs HMMA.1688.F32.TF32 LDGSTS
extern "C" __global__ void product(float* c, const unsigned* a, const unsigned* b) {
  const int t = threadIdx.x;
  float d[4] = {};
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[t]), "r"(a[t + 32]), "r"(a[t + 64]), "r"(a[t + 96]), "r"(b[t]), "r"(b[t + 32]));
  for (int i = 0; i < 4; i++) c[t * 4 + i] = d[i];
}
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that writes a source and returns all that is found wrong with it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def checked(text: str, architecture: str = "sm_90a", *defines: str) -> str:
        path = tmp_path / "planted.cu"
        path.write_text(text)
        inspection.read_source.cache_clear()
        inspection.compile_file.cache_clear()
        compiled = inspection.compile_file(path, defines, architecture)
        return "; ".join(inspection.findings(inspection.read_source(path), compiled))

    return checked


@compiles
def test_a_good_kernel_passes(check) -> None:
    assert check(SCALE) == ""


@compiles
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SPILLING, " bytes spilled from registers, legal are at most 0"),
        (SPILLING, "crowded has STL instructions: local memory"),
        (INDEXED, "indexed uses 128 bytes of stack, legal are at most 0"),
        (SCALE.replace("registers 16", "registers 4"), " registers, legal are at most 4"),
        (SCALE.replace("shared 512", "shared 511"), "uses 512 bytes of static shared memory, legal are at most 511"),
        (SCALE.replace("512", "512, needs HMMA"), "scale has no HMMA instruction"),
        (PRODUCT, "product has no LDGSTS instruction"),
        (PRODUCT.replace("HMMA.1688.F32.TF32", "HMMA.16816"), "product has no HMMA.16816 instruction"),
        (SERIAL, "wgmma.mma_async instructions are serialized due to"),
        (SERIAL.replace("//@ budget", "//"), "serial states no budget; it uses '//@ budget: registers 30, shared 0, n"),
        (SCALE.replace("{\n", "{\n  int unused = 3;\n", 1), 'planted.cu:3: warning #177-D: variable "unused"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(check, text: str, said: str) -> None:
    assert said in check(text)


@compiles
def test_the_needed_instruction_is_found(check) -> None:
    assert check(PRODUCT.replace(" LDGSTS", "")) == ""


@compiles
def test_each_variant_is_compiled_by_itself(check) -> None:
    text = SCALE.replace("float a)", "T a)")
    assert check(text, "sm_80", "T=float") == ""
    with pytest.raises(nvrtc.CompileError, match=r'planted\.cu:2: error: identifier "T" is undefined'):
        check(text, "sm_80")


@compiles
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("x[0] = INFINITY;", r'planted\.cu:7: error: identifier "INFINITY" is undefined'),
        ("x[0] = 1", r'planted\.cu:7: error: expected a ";"'),
        ('asm("nonsense.f32;");', "nonsense"),
    ],
)
def test_what_the_compiler_refuses_is_an_error_with_its_place(check, bad: str, said: str) -> None:
    with pytest.raises(nvrtc.CompileError, match=said):
        check(SCALE.replace("}\n", f"{bad} }}\n"))


def test_directives_are_read(tmp_path: Path) -> None:
    path = tmp_path / "some.cu"
    path.write_text(
        "//@ variants: T=float; T=half FAST=1\n//@ architectures: sm_90 sm_90a\n"
        '// extern "C" __global__ void no_kernel(int n);\n'
        f'{SCALE}//@ budget: registers 255, shared 0, needs HMMA.16816 LDSM\nextern "C" __global__ void\n'
        '__launch_bounds__(32 * (2 + 2), 1) other(int n) {}\nextern "C" __global__ void none(int n) {}\n'
    )
    source = inspection.read_source(path)
    assert source.variants == (("T=float",), ("T=half", "FAST=1"))
    assert source.architectures == ("sm_90", "sm_90a")
    budget = inspection.Budget
    other = budget(255, 0, ("HMMA.16816", "LDSM"))
    assert source.budgets == {"scale": budget(16, 512), "other": other, "none": None}


def test_directives_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "some.cu"
    path.write_text("// nothing\n")
    assert inspection.read_source(path) == inspection.Source(path, ((),), ("sm_80", "sm_90"), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n//@ budgets: registers 3\n", "some.cu:2: unknown directive 'budgets'"),
        ("//@ architectures: 90\n", "some.cu:1: architectures are named like sm_90a, found '90'"),
        ("//@ architectures:\n", "architectures are named like"),
        ("//@ budget: registers 3, shared 0\n", "some.cu:1: a budget stands directly above its kernel"),
        ("//@ budget: registers 3, shared 0\n" + SCALE, "some.cu:2: a budget stands directly above its kernel"),
        (SCALE.replace(", shared 512", ""), "some.cu:1: a budget reads 'registers 96, shared"),
        (SCALE.replace("512", "lots", 1), "some.cu:1: a budget reads 'registers 96, shared"),
        (SCALE.replace("shared 512", "shared 512, spills 3"), "some.cu:1: a budget reads 'registers 96, shared"),
    ],
)
def test_bad_directives_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "some.cu"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        inspection.read_source(path)


def test_a_log_that_is_not_understood_is_an_error() -> None:
    with pytest.raises(ValueError, match="not what ptxas used to print"):
        inspection.read_log("ptxas info    : Compiling entry function 'f' for 'sm_90'\nptxas info: something new\n", {})


# ------------------------------------------------------------------------------------------- command, installation


@compiles
def test_command_shows_what_kernels_became(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some.cu"
    path.write_text(PRODUCT)
    assert main(["compile", str(path), "--arch", "sm_90"]) == 1
    shown = capsys.readouterr()
    head, row = (line.split() for line in shown.out.splitlines())
    figures = dict(zip(head, row, strict=True))
    assert figures["kernel"] == "product"
    assert figures["arch"] == "sm_90"
    assert figures["HMMA"] == "1"
    assert figures["spilled"] == "0"
    assert 0 < int(figures["registers"]) <= 32
    assert shown.err == "some.cu sm_90: product has no LDGSTS instruction\n"

    path.write_text(SCALE.replace(";", "", 1))
    inspection.read_source.cache_clear()
    inspection.compile_file.cache_clear()
    assert main(["compile", str(path)]) == 2
    assert 'some.cu:4: error: expected a ";"' in capsys.readouterr().err


def test_without_the_wheels_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    for name in ("_wheels", "_disassembler"):
        monkeypatch.setattr(nvrtc, name, lambda: [])
    monkeypatch.setattr(nvrtc, "TOOLKIT", tmp_path)
    nvrtc.unavailable_reason.cache_clear()
    try:
        assert main(["compile"]) == 2
        said = capsys.readouterr().err
        assert "is not installed; install the extra 'test'" in said or "on Linux only" in said
    finally:
        nvrtc.unavailable_reason.cache_clear()
