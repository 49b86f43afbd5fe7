#!/usr/bin/env bash
# The static binary needs nothing: it serves a function from an empty root directory as an ordinary user.
#
# This stands in for running the image of the Dockerfile where no engine can build one. Where this user may not
# change its root directory (no root, no user namespaces), it says so and checks the linkage only.
#
#   tests/static.sh [BINARY]     builds one first when none is given
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:-}
if [ -z "$binary" ]; then
    target=$(rustc -vV | sed -n 's/^host: //p')
    # A target of its own keeps the flags away from build scripts and the dependency cache of ordinary builds.
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target "$target" --bin pilotlight
    binary=target/$target/release/pilotlight
fi

if file -L "$binary" 2>/dev/null | grep -q 'dynamically linked' || readelf -l "$binary" 2>/dev/null | grep -q INTERP; then
    echo "static: $binary asks for a dynamic loader" >&2
    exit 1
fi
echo "static: $(stat -c %s "$binary") bytes, no dynamic loader"

root=$(mktemp -d)
pid=
cleanup() {
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    rm -rf "$root"
}
trap cleanup EXIT
mkdir "$root/config" "$root/tmp" "$root/dev"
# The one thing of a container engine's that a child process cannot do without.
mknod -m 666 "$root/dev/null" c 1 3 2>/dev/null || install -m 666 /dev/null "$root/dev/null" 2>/dev/null || : >"$root/dev/null"
cp "$binary" "$root/pilotlight"
cp examples/hello/hello.yaml "$root/config/"
chmod 755 "$root" "$root/dev" "$root/config" "$root/pilotlight"
chmod 644 "$root/config/hello.yaml"
chmod 1777 "$root/tmp"

arguments=(run /config --admin 127.0.0.1:0 --mesh 127.0.0.1:0 --http-port 0 --access-log off)
if [ "$(id -u)" = 0 ]; then
    enter=("$(command -v chroot)" --userspec=65532:65532 "$root" /pilotlight)
elif unshare --user --map-current-user chroot "$root" /pilotlight --version >/dev/null 2>&1; then
    enter=("$(command -v unshare)" --user --map-current-user "$(command -v chroot)" "$root" /pilotlight)
else
    echo 'static: skipped the run: this user may not change the root directory'
    exit 0
fi

env -i "${enter[@]}" "${arguments[@]}" >/dev/null 2>"$root/tmp/log" &
pid=$!
port=
for _ in $(seq 200); do
    port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\): gateway .*/\1/p' "$root/tmp/log" | head -n 1)
    [ -n "$port" ] && break
    sleep 0.05
done
answer=$(curl -q -sS --noproxy '*' --max-time 20 "http://hello.default.localhost:${port:-0}/") || { cat "$root/tmp/log"; exit 1; }
case $answer in
    *'"revision":"hello-00001"'*) ;;
    *) cat "$root/tmp/log"; echo "static: not the answer of hello: $answer" >&2; exit 1 ;;
esac
kill -TERM "$pid"
wait "$pid" || { cat "$root/tmp/log"; echo 'static: SIGTERM was not a clean exit' >&2; exit 1; }
pid=
echo 'static: a function answered from an empty root directory as user 65532'
