"""
The whole pipeline in one process: `python -m chassis.server --source fused/main.py`.

For tests and small deployments (knative/overlays/small). The answers have the same bytes as those of the three
functions, and the process accepts the events of users as well.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.call import Call, Handler, Reply
from chassis.environment import Reader
from chassis.server.asgi import as_function
from chassis.server.cors import Cors
from chassis.server.service import Service
from chassis.server.settings import ServingSettings
from chassis.wire import cloudevents
from chassis.wire.cloudevents import is_event
from functions.extract_features.main import open_handler as open_extract_features
from functions.rank_items.main import open_handler as open_rank_items
from functions.recommend.handler import Recommend
from functions.recommend.hops import FeaturesClient, RankingClient
from functions.recommend.popular import PopularList
from functions.recommend.recommender import Recommender
from functions.recommend.settings import PopularSettings
from fused.hop import FusedHop
from recsys.contracts.events import STORED
from recsys.contracts.pages import pages_of

reader = Reader()
settings = ServingSettings.read(reader, name="fused", max_body_bytes=512 * 1024)
popular_settings = PopularSettings.read(reader)
cors = Cors.read(reader)
reader.finish()


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Open extract_features and rank_items, and yield the handler of recommend, which calls both."""
    async with open_extract_features() as extract_features, open_rank_items() as rank_items:
        ranking = RankingClient(FusedHop("rank_items", rank_items))
        features = FeaturesClient(FusedHop("extract_features", extract_features))
        popular = PopularList(ranking, popular_settings)
        async with popular.kept_fresh():
            recommend = Recommend(Recommender(features=features, ranking=ranking, popular=popular))

            async def handle_request(call: Call) -> Reply:
                handler = extract_features if is_event(call.headers) and _is_for_the_store(call) else recommend
                return await handler(call)

            yield handle_request


def _is_for_the_store(call: Call) -> bool:
    """Tell whether extract_features takes all events of *call*. recommend refuses a batch that mixes them with others."""
    return all(event.type in STORED for event in cloudevents.read_events(call.headers, call.body))


service = Service("fused", open_handler, settings=settings, pages=pages_of("recommend"), cors=cors)
handle = as_function(service)
