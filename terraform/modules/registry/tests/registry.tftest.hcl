mock_provider "aws" {
  mock_resource "aws_ecr_repository" {
    defaults = {
      arn            = "arn:aws:ecr:eu-west-1:123456789012:repository/roster"
      repository_url = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/roster"
    }
  }
}

variables {
  name = "roster"
}

run "repository" {
  assert {
    condition     = aws_ecr_repository.this.name == "roster" && aws_ecr_repository.this.image_tag_mutability == "IMMUTABLE"
    error_message = "A tag means one image for ever."
  }

  assert {
    condition     = one(aws_ecr_repository.this.image_scanning_configuration).scan_on_push && one(aws_ecr_repository.this.encryption_configuration).encryption_type == "AES256"
    error_message = "Images are scanned and encrypted."
  }

  assert {
    condition     = aws_ecr_repository.this.force_delete == false
    error_message = "The repository is not deleted with its images."
  }

  assert {
    condition     = output.repository_url == "123456789012.dkr.ecr.eu-west-1.amazonaws.com/roster" && output.repository_arn == "arn:aws:ecr:eu-west-1:123456789012:repository/roster"
    error_message = "The outputs name what was made."
  }
}

run "life_cycle" {
  variables {
    keep_images = 5
  }

  assert {
    condition = { for rule in jsondecode(aws_ecr_lifecycle_policy.this.policy).rules : rule.selection.tagStatus => "${rule.selection.countType} ${rule.selection.countNumber} ${rule.action.type}" } == {
      untagged = "sinceImagePushed 7 expire"
      tagged   = "imageCountMoreThan 5 expire"
    }
    error_message = "Untagged images go after a week, tagged ones when there are five newer."
  }

  assert {
    condition     = aws_ecr_lifecycle_policy.this.repository == "roster"
    error_message = "The life cycle is the repository's."
  }
}

run "without_deletion_protection" {
  variables {
    deletion_protection = false
  }

  assert {
    condition     = aws_ecr_repository.this.force_delete
    error_message = "The repository can be destroyed with its images."
  }
}

run "refuses_bad_name" {
  command = plan
  variables { name = "roster/api" }
  expect_failures = [var.name]
}

run "refuses_to_keep_nothing" {
  command = plan
  variables { keep_images = 0 }
  expect_failures = [var.keep_images]
}

run "refuses_to_keep_half_an_image" {
  command = plan
  variables { keep_images = 2.5 }
  expect_failures = [var.keep_images]
}

run "refuses_to_keep_too_many" {
  command = plan
  variables { keep_images = 1001 }
  expect_failures = [var.keep_images]
}
