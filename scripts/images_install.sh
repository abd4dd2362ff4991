#!/bin/sh
# Install one hash lock into the environment of an image; runs in the build stages of the Dockerfiles.
#
#     sh images_install.sh LOCK [PACKAGE …]     packages that are taken out again
#
# INDEX_URL, if set, is where the packages come from. What a builder's network needs comes as build secrets, so that no
# layer and no history holds it: ca_bundle (certificates), pip_conf, uv_toml (indexes and their credentials).
set -eu

lock=$1
shift
secrets=/run/secrets
if [ -f "$secrets/ca_bundle" ]; then export SSL_CERT_FILE="$secrets/ca_bundle" PIP_CERT="$secrets/ca_bundle"; fi
if [ -f "$secrets/pip_conf" ]; then export PIP_CONFIG_FILE="$secrets/pip_conf"; fi
if [ -f "$secrets/uv_toml" ]; then export UV_CONFIG_FILE="$secrets/uv_toml"; fi

if [ ! -x /opt/tools/bin/uv ]; then # the first lock brings uv itself, by pip
    exec /opt/tools/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
        --require-hashes --no-deps --only-binary :all: --requirement "$lock"
fi

# The cache lies in the layer's own file system: files are linked, not copied, and the cache goes before the layer ends.
export UV_CACHE_DIR=/opt/uv-cache UV_LINK_MODE=hardlink UV_HTTP_TIMEOUT=300
/opt/tools/bin/uv pip install --quiet --python /opt/terroir/bin/python --require-hashes --no-deps --no-build \
    --requirement "$lock" ${INDEX_URL:+--index-url "$INDEX_URL"}
if [ $# -gt 0 ]; then
    /opt/tools/bin/uv pip uninstall --quiet --python /opt/terroir/bin/python "$@"
fi
rm -rf /opt/uv-cache
