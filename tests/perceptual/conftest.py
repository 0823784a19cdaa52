from hub_fixtures import empty_hub, hub_with_standins, one_thread, standin_home

__all__ = ["empty_hub", "hub_with_standins", "one_thread", "standin_home"]
