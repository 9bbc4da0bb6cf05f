"""A local page on which trained models answer, and are attacked, while somebody watches; see `page.build_page`."""
