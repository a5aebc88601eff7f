"""`asearch serve`: an OpenAI-compatible server whose models are strategies; a chat request becomes a search.

request ─ keys ─ wire (what is asked for, and what is refused) ─ catalogue (model name -> strategy)
        ─ admission (a place among the searches) ─ searches ─ replies (a completion, or a stream of chunks)
"""

from asearch.proxy.catalogue import Catalogue
from asearch.proxy.errors import ApiError
from asearch.proxy.keys import Keys, load_keys
from asearch.proxy.options import ProxyOptions
from asearch.proxy.server import Proxy
from asearch.proxy.service import run_until_stopped

__all__ = ["ApiError", "Catalogue", "Keys", "Proxy", "ProxyOptions", "load_keys", "run_until_stopped"]
