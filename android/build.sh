#!/usr/bin/env bash
# Builds and tests what can be built without Android's SDK:
#   android/build.sh core    the library core/, and its tests on the graph that ships
#   android/build.sh app     the app's resources and its Java, compiled against core/ and check/api.txt
#   android/build.sh         both
# It makes no APK: that needs Android's SDK, with Gradle (README.md). From Debian: default-jdk-headless junit4 aapt
# android-framework-res. PYTHON names a Python that has onnxruntime, OUT another folder than android/build.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(dirname "$here")"
out="${OUT:-$here/build}"
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  if [ -x "$root/.venv/bin/python" ]; then PYTHON="$root/.venv/bin/python"; fi
fi
framework="${FRAMEWORK:-/usr/share/android-framework-res/framework-res.apk}"
quick="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" # for runs as short as these

stop() {
  echo "$1" >&2
  exit 1
}

has() { # a program, and Debian's package of it
  command -v "$1" > /dev/null || stop "$1 is missing; install it with: apt-get install $2"
}

compile() {
  javac -J-XX:TieredStopAtLevel=1 -J-XX:+UseSerialGC "$@"
}

compile_core() {
  has javac default-jdk-headless
  rm -rf "$out/core"
  mkdir -p "$out/core"
  compile --release 11 -Xlint:all -Werror -d "$out/core" "$here"/core/src/main/java/org/wavelldm/core/*.java
}

core() {
  local junit="${JUNIT:-/usr/share/java/junit4.jar:/usr/share/java/hamcrest.jar}"
  [ -f "${junit%%:*}" ] || stop "JUnit 4 is missing; install it with: apt-get install junit4"
  "$PYTHON" -c 'import onnxruntime' 2> /dev/null ||
    stop "the tests run the graph with $PYTHON, which has no onnxruntime; install it with: pip install 'wavelldm[onnx]'"
  compile_core
  rm -rf "$out/test" "$out/vectors"
  mkdir -p "$out/test"
  "$PYTHON" "$here/vectors.py" write "$out/vectors"
  compile -Xlint:all -Werror -cp "$out/core:$junit" -d "$out/test" "$here"/core/src/test/java/org/wavelldm/core/*.java
  local tests
  tests="$(cd "$here/core/src/test/java" && ls org/wavelldm/core/*Test.java | sed 's/\.java$//; s|/|.|g')"
  # shellcheck disable=SC2086
  java $quick -cp "$out/core:$out/test:$junit" -Dwavelldm.vectors="$out/vectors" -Dwavelldm.python="$PYTHON" \
    -Dwavelldm.server="$here/vectors.py" org.junit.runner.JUnitCore $tests
}

app() {
  has aapt aapt
  [ -f "$framework" ] ||
    stop "Android's own resources are missing; install them with: apt-get install android-framework-res"
  compile_core
  rm -rf "$out/stubs" "$out/api" "$out/app" "$out/r"
  mkdir -p "$out/stubs" "$out/api" "$out/app" "$out/r"
  # Debian's resources are those of Android 10, where a service of this type has no name yet
  sed -e 's/Type="microphone"/Type="mediaProjection"/' -e 's/<manifest /<manifest package="org.wavelldm.app" /' \
    "$here/app/src/main/AndroidManifest.xml" > "$out/r/AndroidManifest.xml"
  aapt package -f -m -J "$out/r" -M "$out/r/AndroidManifest.xml" -S "$here/app/src/main/res" -I "$framework" \
    -F "$out/r/resources.apk" --min-sdk-version 26 --target-sdk-version 29
  "$PYTHON" "$here/check/check.py" classes "$out/stubs"
  # shellcheck disable=SC2046
  compile --release 11 -d "$out/api" $(find "$out/stubs" -name '*.java')
  # shellcheck disable=SC2046
  compile --release 11 -Xlint:all -Werror -cp "$out/core:$out/api" -d "$out/app" \
    $(find "$here/app/src/main/java" "$out/r" -name '*.java')
  echo "the app's resources and Java compile; an APK needs Android's SDK"
}

case "${1:-all}" in
  core) core ;;
  app) app ;;
  all) core && app ;;
  *) stop "usage: android/build.sh [core|app]" ;;
esac
