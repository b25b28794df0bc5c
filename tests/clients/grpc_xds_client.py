"""A proxyless gRPC client: resolves a service through xDS and calls it.

grpc_xds_client.py TARGET COUNT     with GRPC_XDS_BOOTSTRAP naming the bootstrap; prints one line per answer.

The method is unary, takes and returns plain bytes; the server answers with its own name.
"""
import sys

import grpc

target, count = sys.argv[1], int(sys.argv[2])
with grpc.insecure_channel(f"xds:///{target}") as channel:
    call = channel.unary_unary("/pilotfish.test.Echo/Say")
    for _ in range(count):
        print(call(b"hello", timeout=20, wait_for_ready=True).decode(), flush=True)
