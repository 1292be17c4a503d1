"""Classes without contents, from `api.txt`, so that the app can be compiled where Android's SDK is not there.

python android/check/check.py classes FOLDER    writes them as Java
python android/check/check.py compare FOLDER    compares api.txt with the type stubs of Android's API in FOLDER
                                                (an unpacked chaquopy-stubs-android)
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

API = Path(__file__).parent / "api.txt"
HEAD = re.compile(r"((?:abstract )?class|interface) ([\w.]+)(.*)")
METHOD = re.compile(
    r"(protected |static |abstract )?(<.*?> )?(?:([\w.<>\[\], ?]+) )?(\w+)\((.*)\)( throws .*)?$"
)  # kind, type variable, result, name, parameters
NUMBERS = ("int", "long", "float", "double", "byte", "short", "char")


@dataclass
class Kind:
    """A class or an interface of the API."""

    head: str
    name: str
    rest: str
    members: list[str] = field(default_factory=list)
    inner: list["Kind"] = field(default_factory=list)


def kinds() -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    for line in re.sub(r"\n +", " ", API.read_text()).splitlines():  # an indented line continues the one before
        if not line or line.startswith("#"):
            continue
        if head := HEAD.match(line):
            kind = found[head[2]] = Kind(*head.groups())
            outer = head[2].rpartition(".")[0]
            if outer in found:
                found[outer].inner.append(kind)
        else:
            kind.members.append(line)
    return found


def parameters(text: str) -> list[str]:
    return [part.strip() for part in re.split(r",(?![^<]*>)", text) if part.strip()]


def as_java(kind: Kind, nested: bool = False) -> str:
    name, interface = kind.name.split(".")[-1], kind.head == "interface"
    lines = [f"public {'static ' if nested else ''}{kind.head} {name}{kind.rest} {{"]
    if not interface and not any(member == "new()" for member in kind.members):
        lines.append(f"protected {name}() {{}}")
    for member in kind.members:
        if member.startswith(("const ", "field ")):
            word, type_name, constant = member.split()
            value = "null" if type_name == "String" else f'{type_name == "int" and "Integer.parseInt" or ""}("0")'
            lines.append(
                f"public static final {type_name} {constant} = {value};"
                if word == "const"
                else f"public {type_name} {constant};"
            )
            continue
        word, variable, result, method, given, throws = METHOD.match(member).groups("")
        arguments = ", ".join(f"{p} a{i}" for i, p in enumerate(parameters(given)))
        open_ended = interface or word == "abstract "
        body = ";" if open_ended else " { throw new UnsupportedOperationException(); }"
        access = "protected" if word == "protected " else "public"
        extra = word if word in ("static ", "abstract ") else ""
        signature = f"{name}" if method == "new" else f"{result} {method}"
        lines.append(f"{access} {extra}{variable}{signature}({arguments}){throws}{body}")
    lines += [as_java(inner, True) for inner in kind.inner]
    return "\n".join([*lines, "}"])


def write_classes(folder: Path) -> None:
    found = kinds()
    for name, kind in found.items():
        package, _, short = name.rpartition(".")
        if package in found:
            continue
        path = folder / package.replace(".", "/") / f"{short}.java"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"package {package};\n{as_java(kind)}\n")


class Described:
    """Android's API as type stubs describe it: one file a package, `int | java.jint | java.lang.Integer` for an int."""

    def __init__(self, folder: Path):
        self.folder, self.trees = folder, {}

    def tree(self, package: str) -> ast.Module | None:
        first, *rest = package.split(".")
        path = self.folder.joinpath(f"{first}-stubs", *rest, "__init__.pyi")
        if package not in self.trees:
            self.trees[package] = ast.parse(path.read_text()) if path.is_file() else None
        return self.trees[package]

    def find(self, name: str) -> tuple[str, ast.ClassDef] | None:
        """The package and the class of a full name."""
        parts = name.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            node = self.tree(".".join(parts[:cut]))
            for part in parts[cut:]:
                inside = [n for n in getattr(node, "body", []) if isinstance(n, ast.ClassDef) and n.name == part]
                node = inside[0] if inside else None
            if node:
                return ".".join(parts[:cut]), node
        return None

    def lineage(self, name: str) -> Iterator[tuple[str, ast.ClassDef]]:
        found = self.find(name)
        if not found:
            return
        package, node = found
        yield found
        for base in map(ast.unparse, node.bases):
            base = base.partition("[")[0]
            yield from self.lineage(base if self.find(base) else f"{package}.{base}")

    def java(self, package: str, annotation: ast.expr | None) -> str:
        """A type as Java writes it, without what stands in < >."""
        words = [w.strip() for w in ast.unparse(annotation).split("|")]
        for number in NUMBERS:
            if f"java.j{number}" in words:
                return number
        if "bool" in words and len(words) <= 3:
            return "boolean"
        words = [w for w in words if w not in ("None", "java.lang.String")] or words
        text = words[0]
        if array := re.match(r"java\.chaquopy\.JavaArrayJ(\w+)", text):
            return f"{array[1].lower()}[]"
        if array := re.match(r"java\.chaquopy\.JavaArray\[(.*)\]", text):
            return f"{array[1].removeprefix('java.lang.')}[]"
        text = text.partition("[")[0]
        if "." in text and not self.find(text) and self.find(f"{package}.{text}"):
            text = f"{package}.{text}"
        if "." not in text and self.find(f"{package}.{text}"):
            text = f"{package}.{text}"
        return {"str": "String", "None": "void", "typing.Type": "Class"}.get(text, text.removeprefix("java.lang."))


def plain(type_name: str) -> str:
    return re.sub(r"<.*>", "", type_name).replace("...", "[]")


def compare(folder: Path) -> list[str]:
    """What api.txt says and the description does not."""
    described, wrong = Described(folder), []
    for name, kind in kinds().items():
        if not name.startswith("android."):
            continue
        lineage = list(described.lineage(name))
        if not lineage:
            wrong.append(f"{name} does not exist")
            continue
        if kind.rest.startswith(" extends android"):
            base = described.find(kind.rest.split()[-1])
            if base[1] not in [node for _, node in lineage]:
                wrong.append(f"{name} does not extend {base[1].name}")
        for member in kind.members:
            if member.startswith(("const ", "field ")):
                word, type_name, constant = member.split()
                types = {
                    ast.unparse(n.annotation)
                    for _, node in lineage
                    for n in node.body
                    if isinstance(n, ast.AnnAssign) and n.target.id == constant
                }
                wanted = {"int": "int", "String": "str"}[type_name]
                if (f"typing.ClassVar[{wanted}]" if word == "const" else wanted) not in types:
                    wrong.append(f"{name}: {member}, described as {types}")
                continue
            word, variable, result, method, given, _ = METHOD.match(member).groups("")
            wanted, options = [plain(p) for p in parameters(given)], []
            for package, node in lineage[:1] if method == "new" else lineage:
                for n in node.body:
                    if isinstance(n, ast.FunctionDef) and n.name == ("__init__" if method == "new" else method):
                        still = any(ast.unparse(d) == "staticmethod" for d in n.decorator_list)
                        arguments = [*n.args.posonlyargs, *n.args.args][0 if still else 1 :]
                        types = [described.java(package, a.annotation) for a in arguments]
                        if n.args.vararg:
                            types.append("Object[]")
                        back = "" if method == "new" else described.java(package, n.returns)
                        options.append((types, back, still))
            result = plain(result)
            same = [
                o
                for o in options
                if o[0] == wanted and (variable or o[1] == result or {o[1], result} <= {"int", "long"})
            ]
            if not any(o[2] == (word == "static ") for o in same):
                wrong.append(f"{name}: {member}, described as {options}")
    return wrong


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("classes", "compare"):
        sys.exit(__doc__)
    if sys.argv[1] == "classes":
        write_classes(Path(sys.argv[2]))
    else:
        problems = compare(Path(sys.argv[2]))
        count = sum(len(kind.members) for name, kind in kinds().items() if name.startswith("android."))
        print("\n".join(problems) or f"all {count} members of Android's classes are as described")
        sys.exit(bool(problems))
